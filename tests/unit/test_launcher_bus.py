"""What goes to PID 1, read by systemd's own library."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sparkhost.launcher.bus import Bus, BusError, split
from sparkhost.launcher.config import Config
from sparkhost.launcher.request import Start
from sparkhost.launcher.unit import properties
from tests.unit.launcher_peer import Peer

NAME = "spark-job-1000-00c0ffee.service"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus"


def test_systemds_library_reads_the_unit_as_it_is_meant(path: Path) -> None:
    peer = Peer(path)
    unit = properties(Start(memory=2**30, time=60, name="x"), Config(), 1000, "00c0ffee")
    ours, theirs = socket.socketpair()
    bus = Bus(str(path))
    bus.start_unit(NAME, unit, [theirs.fileno()])
    bus.close()
    text = " ".join(peer.read().split())
    for part in (
        "Path=/org/freedesktop/systemd1 Interface=org.freedesktop.systemd1.Manager Member=StartTransientUnit",
        f'MESSAGE "ssa(sv)a(sa(sv))" {{ STRING "{NAME}"; STRING "fail";',
        'STRING "User"; VARIANT "s" { STRING "1000"; };',
        'STRING "MemoryMax"; VARIANT "t" { UINT64 1073741824; };',
        'STRING "RuntimeMaxUSec"; VARIANT "t" { UINT64 60000000; };',
        'STRING "OOMScoreAdjust"; VARIANT "i" { INT32 500; };',
        'STRING "PrivateIPC"; VARIANT "b" { BOOLEAN true; };',
        'STRUCT "ss" { STRING "/dev/shm"; STRING "mode=1777,size=1073741824"; };',
        'STRING "/opt/sparkfleet/bin/spark-job-end"; STRING "1000"; STRING "00c0ffee"; }; BOOLEAN false;',
        'ARRAY "(sa(sv))" { };',
    ):
        assert part in text, part
    assert text.count('STRUCT "sv"') == len(unit)
    # By a number of the receiver's: the library has looked it up among the descriptors that came along.
    assert 'STRING "StandardInputFileDescriptor"; VARIANT "h" { UNIX_FD ' in text
    ours.close()
    theirs.close()


def test_what_systemd_says_is_told(path: Path) -> None:
    Peer(path, "Unit x already exists.")
    bus = Bus(str(path))
    with pytest.raises(BusError, match=r"StopUnit: Unit x already exists\."):
        bus.stop_unit(NAME)
    bus.close()


def test_no_bus_is_one_line(path: Path) -> None:
    with pytest.raises(BusError, match="no connection to the system bus: "):
        Bus(str(path))


@pytest.mark.parametrize(
    ("signature", "parts"),
    [
        ("", []),
        ("ssa(sv)a(sa(sv))", ["s", "s", "a(sv)", "a(sa(sv))"]),
        ("aasb", ["aas", "b"]),
        ("(s(ii))t", ["(s(ii))", "t"]),
    ],
)
def test_signatures_are_parted(signature: str, parts: list[str]) -> None:
    assert split(signature) == parts
