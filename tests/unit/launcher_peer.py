"""The other end of a bus, by systemd's own library: an implementation of D-Bus that shares nothing with ours."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from pathlib import Path

WITH_HEADER = 1
"""SD_BUS_MESSAGE_DUMP_WITH_HEADER."""


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
