"""What goes to PID 1, read by systemd's own library: an implementation of D-Bus that shares nothing with ours."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from pathlib import Path

import pytest

from sparkhost.launcher.bus import Bus, BusError, split
from sparkhost.launcher.config import Config
from sparkhost.launcher.request import Start
from sparkhost.launcher.unit import properties

WITH_HEADER = 1
"""SD_BUS_MESSAGE_DUMP_WITH_HEADER."""
NAME = "spark-job-1000-00c0ffee.service"


class Id128(ctypes.Structure):
    """sd_id128_t."""

    _fields_ = (("bytes", ctypes.c_uint8 * 16),)


class Peer:
    """The other end of a bus, by libsystemd: answers every call, and writes down what it read."""

    def __init__(self, path: Path, error: str | None = None) -> None:
        self.sd = ctypes.CDLL("libsystemd.so.0")
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.fdopen.restype = ctypes.c_void_p
        self.error = error
        self.dump = os.memfd_create("dump")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        bus = ctypes.c_void_p()
        sd = self.sd
        sd.sd_bus_set_server.argtypes = [ctypes.c_void_p, ctypes.c_int, Id128]
        sd.sd_bus_wait.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        fd = connection.detach()
        steps = [
            sd.sd_bus_new(ctypes.byref(bus)),
            sd.sd_bus_set_fd(bus, fd, fd),
            sd.sd_bus_set_server(bus, 1, Id128()),
            sd.sd_bus_negotiate_fds(bus, 1),
            sd.sd_bus_start(bus),
        ]
        assert min(steps) >= 0, steps
        stream = ctypes.c_void_p(self.libc.fdopen(os.dup(self.dump), b"w"))
        while True:
            message = ctypes.c_void_p()
            done = sd.sd_bus_process(bus, ctypes.byref(message))
            if done < 0:
                break  # the other side has closed the connection
            if message:
                sd.sd_bus_message_dump(message, stream, ctypes.c_uint64(WITH_HEADER))
                self.libc.fflush(stream)
                hello = sd.sd_bus_message_is_method_call(message, None, b"Hello")
                if self.error and not hello:
                    sd.sd_bus_reply_method_errorf(message, b"org.example.Error", self.error.encode())
                else:
                    sd.sd_bus_reply_method_return(message, b"s", b":1.1")
                sd.sd_bus_message_unref(message)
            elif done == 0:
                sd.sd_bus_wait(bus, ctypes.c_uint64(2**64 - 1))
        sd.sd_bus_unref(bus)

    def read(self) -> str:
        """Everything that came, as systemd's library shows it."""
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()
        return os.pread(self.dump, 1 << 20, 0).decode()


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
        'STRING "/opt/sparkfleet/lib/spark-job-end"; STRING "1000"; STRING "00c0ffee"; }; BOOLEAN false;',
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
