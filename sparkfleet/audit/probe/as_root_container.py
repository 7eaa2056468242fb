"""What Docker, PID 1 and the kernel say of the container that serves vLLM."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

NAME = "sparkfleet-vllm"
FORMAT = "{{.Config.Image}} {{.State.Status}} {{.State.Pid}}"


def image(parameters: Parameters) -> Mapping[str, Seen]:
    """The digests that Docker has the pinned image by; nothing where the fleet file asks for none."""
    if not (reference := parameters["vllm_image"]):
        return {}
    seen = run(("docker", "image", "inspect", "--format", "{{json .RepoDigests}}", reference))
    return {"vllm_image": missing(seen)}


def container(parameters: Parameters) -> Mapping[str, Seen]:
    """The container's image, state and cgroup, the caps down to it, and its command line, as the kernel has them."""
    if not parameters["vllm_image"]:
        return {}
    unit = run(("systemctl", "show", "-p", "Id,LoadState,ActiveState,UnitFileState", "--", f"{NAME}.service"))
    seen = run(("docker", "container", "inspect", "--format", FORMAT, NAME))
    words = seen.output.split()
    if seen.rc or len(words) != 3:
        return {"vllm_unit": unit, "vllm_container": missing(seen)}
    process = Path("/proc", words[2])
    cgroup = read(str(process / "cgroup")).output.strip().removeprefix("0::")
    command = read(str(process / "cmdline")).output.rstrip("\0").split("\0")
    caps = {
        str(path): read(f"/sys/fs/cgroup{path}/memory.max").output.strip()
        for path in (Path(cgroup), *Path(cgroup).parents)
        if str(path) != "/" and cgroup
    }
    found = {"image": words[0], "state": words[1], "cgroup": cgroup, "memory_max": caps, "command": command}
    return {"vllm_unit": unit, "vllm_container": seen._replace(output=json.dumps(found, sort_keys=True) + "\n")}


def missing(seen: Seen) -> Seen:
    """Docker's word that there is none is an answer; any other failure is no evidence."""
    if seen.rc == 1 and "no such" in seen.error.lower():
        return seen._replace(output="absent\n", rc=0, error="")
    return seen


LOOKS: dict[str, Looks] = {"vllm_image": image, "vllm_container": container}
