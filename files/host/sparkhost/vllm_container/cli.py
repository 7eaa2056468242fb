"""`spark-vllm`: whether the server of the measure vllm_container answers, and where it is. Changes nothing."""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparkhost.base import bounded
from sparkhost.base.cgroups import cgroup_of
from sparkhost.base.pipes import quiet_without_reader
from sparkhost.vllm_room.main import main as room

NAME = "sparkfleet-vllm"
CGROUPS = Path("/sys/fs/cgroup")
SECONDS = 5.0
"""Most that the server may take to say that it is well."""
TEXT = """\
Whether the vLLM server that the admin has set up answers, from which image, and under which cap. Asks Docker, which
root and the members of the group docker may; changes nothing."""
END = """\
Exit code: 0 it answers, 1 it does not, or there is none, 2 a mistake on the command line, 3 Docker cannot be asked.

examples:
  sudo spark-vllm
  sudo spark-vllm --json
  journalctl -u sparkfleet-vllm    what it says itself"""


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["room"]:
        return room(words[1:])
    parser = argparse.ArgumentParser(
        prog="spark-vllm", description=TEXT, epilog=END, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one mapping, for programs")
    options = parser.parse_args(words)
    try:
        found = status()
    except OSError as error:
        print(json.dumps({"problem": str(error)}) if options.json else f"spark-vllm: {error}")
        return 3
    print(json.dumps(found, sort_keys=True) if options.json else "\n".join(lines(found)))
    return 0 if found["healthy"] else 1


def status() -> dict[str, Any]:
    """What Docker, the kernel and the server itself say. Raises OSError where Docker cannot be asked."""
    try:
        asked = subprocess.run(
            ["docker", "container", "inspect", NAME], capture_output=True, text=True, check=False, timeout=30
        )
    except FileNotFoundError as error:
        raise OSError("Docker is not installed on this host") from error
    except subprocess.TimeoutExpired as error:
        raise OSError("Docker does not answer: see systemctl status docker") from error
    if asked.returncode:
        if "no such" in asked.stderr.lower():
            return {"container": None, "healthy": False}
        raise OSError((asked.stderr.strip().splitlines() or ["docker inspect failed"])[-1])
    (container,) = json.loads(asked.stdout)
    pid = container["State"]["Pid"]
    cgroup = cgroup_of(pid) if pid else None
    address, port = published(container)
    return {
        "container": container["Id"][:12],
        "image": container["Config"]["Image"],
        "state": container["State"]["Status"],
        "cgroup": cgroup,
        "memory": figure(cgroup, "memory.current"),
        "memory_max": figure(cgroup, "memory.max"),
        "address": address,
        "port": port,
        "healthy": healthy(address, port),
    }


def published(container: dict[str, Any]) -> tuple[str, int]:
    """Where the host listens for it."""
    bindings = container["HostConfig"].get("PortBindings") or {}
    (binding,) = bindings.get("8000/tcp") or [{"HostIp": "127.0.0.1", "HostPort": "0"}]
    return binding["HostIp"] or "0.0.0.0", int(binding["HostPort"])


def figure(cgroup: str | None, name: str) -> int | None:
    """A figure of a cgroup in bytes; None where there is none, or no limit."""
    if cgroup is None:
        return None
    try:
        text = bounded.read_text(CGROUPS / cgroup.lstrip("/") / name).strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def healthy(address: str, port: int) -> bool:
    """Whether it answers at /health, as vLLM does when it can serve."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    connection = http.client.HTTPConnection(local, port, timeout=SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def lines(found: dict[str, Any]) -> list[str]:
    if found["container"] is None:
        return ["no server: vllm_container.model is not set, or it does not run: systemctl status sparkfleet-vllm"]
    held, cap = found["memory"], found["memory_max"]
    used, most = (f"{count / 2**30:.1f} GiB" if count is not None else "?" for count in (held, cap))
    return [
        f"image    {found['image']}",
        f"state    {found['state']}, {'answers' if found['healthy'] else 'does not answer'} at "
        f"http://{found['address']}:{found['port']}",
        f"cgroup   {found['cgroup'] or 'none'}",
        f"memory   {used} of {most}, without the GPU's",
    ]
