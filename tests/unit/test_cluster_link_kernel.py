"""The change of a host's links on the kernel's own devices, in two network namespaces with two wires between them.

systemd's programs are doubles (tests/doubles/link_programs.py); devices, addresses, packets and files are real. Needs
root and network namespaces, and is left out elsewhere; tests/acceptance/test_cluster_link.py has whole hosts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import link_programs

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = "[Match]\nName=cx0\n\n[Network]\nAddress=192.168.100.10/24\n"
# Everything that a change writes is below a mount of its own, and gone with the process.
MOUNTS = "mount -t tmpfs t /etc/systemd; mount -t tmpfs t /var/lib"
PROGRAM = """
import json, subprocess, sys
from pathlib import Path
from sparkfleet.settings import ClusterLinkSettings
from sparkhost.ssh import guard
from sparkhost.ssh import rollback
from sparkhost.ssh import unproved
from sparkhost.cluster_link.guarded import LinkProof
from sparkhost.ssh.guard import GuardStep
from sparkhost.base.resource import Context, from_json
from tasks import cluster_link

def resource(**more):
    given = {"state": "present", "host": "spark1", "hosts": ["spark1", "spark2"], "devices": ["cx0", "cx1"],
             "take_over": True, "environment": False, **more}
    settings = ClusterLinkSettings.model_validate(given)
    made = cluster_link.remove(settings) if settings.state == "absent" else cluster_link.apply(settings)
    return from_json(made[0].to_json())

def look():
    shown = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, check=True).stdout)
    return {"addresses": {d["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in d["addr_info"]
                                        if a["family"] == "inet"] for d in shown},
            "mtu": {d["ifname"]: d["mtu"] for d in shown},
            "files": {p.name: p.read_text() for p in sorted(Path("/etc/systemd/network").iterdir())},
            "state": sorted(p.name for p in Path("/var/lib/sparkfleet").rglob("record.*"))}

def attempt(act):
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""

answer = {}
exec(sys.stdin.read())
print(json.dumps(answer))
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two namespaces; the first has cx0 and cx1, the second the other ends, cy0 and cy1."""
    if os.geteuid() or not shutil.which("ip") or not Path("/etc/systemd").is_dir():
        pytest.skip("needs root and ip(8)")
    here, there = (f"sf{os.getpid()}{letter}" for letter in "ab")
    try:
        for name in (here, there):
            ip("netns", "add", name)
    except subprocess.CalledProcessError:
        pytest.skip("needs network namespaces")
    try:
        for rail in (0, 1):
            ends = ("type", "veth", "peer", "name", f"cy{rail}", "netns", there)
            ip("link", "add", f"cx{rail}", "netns", here, *ends)
            ip("-n", there, "link", "set", f"cy{rail}", "mtu", "9000", "up")
            ip("-n", here, "link", "set", f"cx{rail}", "up")
        link_programs.write(tmp_path)
        yield here, there
    finally:
        for name in (here, there):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def inside(namespace: str, programs: Path, code: str) -> dict[str, Any]:
    """What the code left in `answer`, run as the host of this namespace."""
    before = f"{MOUNTS}; mkdir /etc/systemd/network /etc/systemd/system"
    script = f'{before}; exec "$@"'
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "unshare", "-m", "sh", "-ec", script, "sh", sys.executable, "-c", PROGRAM],
        input=code,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{ROOT / 'files/host'}"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


BEGIN = f"""
Path("/etc/systemd/network/20-cx7.network").write_text({FOREIGN!r})
subprocess.run(["ip", "address", "add", "192.168.100.10/24", "dev", "cx0"], check=True)
answer["before"] = look()
"""


def test_a_change_that_no_peer_proves_leaves_devices_and_files_as_they_were(
    wires: tuple[str, str], tmp_path: Path
) -> None:
    """Red where MTU, address or the file put aside does not come back."""
    found = inside(
        wires[0],
        tmp_path,
        BEGIN
        + """
wanted = resource()
wanted.apply()
answer["changed"] = look()
answer["left"] = [str(c) for c in wanted.plan(Context())]
proof = LinkProof(wanted.token, wanted.rails, wanted.devices, 1)
answer["proof"] = attempt(proof.apply)
with unproved.locked():
    answer["done"] = rollback.take_back("no peer answers", "timer").done
answer["after"] = look()
""",
    )
    assert found["changed"]["addresses"]["cx1"] == ["10.20.1.11/24"]
    assert found["changed"]["mtu"]["cx0"] == 9000
    assert found["changed"]["state"] == ["record.armed"]
    assert found["left"] == []
    assert "spark2 (10.20.0.12) on cx0 does not answer packets of 9000 bytes" in found["proof"]
    assert found["done"]
    assert found["after"] == found["before"]


def test_a_peer_with_the_right_mtu_proves_it_and_one_with_a_smaller_does_not(
    wires: tuple[str, str], tmp_path: Path
) -> None:
    for rail in (0, 1):
        ip("-n", wires[1], "address", "add", f"10.20.{rail}.12/24", "dev", f"cy{rail}")
    code = """
wanted = resource()
wanted.apply()
answer["proof"] = attempt(LinkProof(wanted.token, wanted.rails, wanted.devices, 1).apply)
"""
    assert inside(wires[0], tmp_path, code)["proof"] == ""
    ip("-n", wires[1], "link", "set", "cy1", "mtu", "1500")
    assert "on cx1 does not answer packets of 9000 bytes" in inside(wires[0], tmp_path, code)["proof"]


def test_an_address_that_another_machine_has_is_found_by_its_mac(wires: tuple[str, str], tmp_path: Path) -> None:
    ip("-n", wires[1], "address", "add", "10.20.1.11/24", "dev", "cy1")
    ip("-n", wires[1], "link", "set", "cy1", "address", "02:00:00:00:00:77")
    code = """
wanted = resource()
wanted.apply()
answer["proof"] = attempt(LinkProof(wanted.token, wanted.rails, wanted.devices, 1).apply)
"""
    said = inside(wires[0], tmp_path, code)["proof"]
    assert "10.20.1.11 on cx1 is in use by another machine, 02:00:00:00:00:77" in said


def test_removal_puts_back_the_file_that_was_put_aside(wires: tuple[str, str], tmp_path: Path) -> None:
    found = inside(
        wires[0],
        tmp_path,
        BEGIN
        + """
wanted = resource()
wanted.apply()
GuardStep(wanted.token, "confirm", []).apply()
answer["kept"] = look()
GuardStep.done.clear()
gone = resource(state="absent")
gone.apply()
GuardStep(gone.token, "confirm", []).apply()
answer["after"] = look()
answer["left"] = [str(c) for c in gone.plan(Context())]
""",
    )
    assert found["kept"]["state"] == []
    assert [name for name in found["kept"]["files"] if "cx7" in name] == []
    assert found["after"] == found["before"]
    assert found["left"] == []


def test_a_network_that_the_host_has_elsewhere_and_a_cable_that_is_out_are_refused(
    wires: tuple[str, str], tmp_path: Path
) -> None:
    ip("-n", wires[1], "link", "set", "cy1", "down")
    code = """
answer["dark"] = attempt(lambda: resource().plan(Context()))
for words in ("link add lan type veth peer name end", "address add 10.20.1.77/25 dev lan", "link set lan up"):
    subprocess.run(["ip", *words.split()], check=True)
answer["overlap"] = attempt(lambda: resource().plan(Context()))
"""
    found = inside(wires[0], tmp_path, code)
    assert "Refused: cx1: no carrier" in found["dark"]
    assert "Refused: 10.20.1.0/24 overlaps 10.20.1.0/25, which this host has on lan" in found["overlap"]
