"""Two calls to PID 1 over the system bus, in the D-Bus protocol itself (dbus.freedesktop.org, "D-Bus Specification").

Why not systemd-run: it cannot hand a socket to a unit without staying beside it, costs a process, and reads options.
Here values are typed from end to end. Only what `unit.properties` needs is there: types s b i t h a(sasb) a(ss).
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

from sparkhost.launcher.unit import Descriptor, Property

SYSTEM_BUS = "/run/dbus/system_bus_socket"
MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
TIMEOUT = 25.0
"""Seconds for each answer; what libraries of D-Bus wait by default."""
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE, UNIX_FDS = 1, 2, 3, 4, 5, 6, 8, 9
LONGEST = 2**27
"""Bytes of a message, by the specification."""
ALIGNMENT = {"y": 1, "g": 1, "b": 4, "i": 4, "u": 4, "h": 4, "s": 4, "o": 4, "a": 4, "t": 8, "(": 8, "v": 1}
FIXED = {"y": "<B", "b": "<I", "i": "<i", "u": "<I", "h": "<I", "t": "<Q"}
"""Types of one size → how `struct` packs them."""


class BusError(Exception):
    """PID 1 said no, or nothing. One line."""


class Writer:
    """Marshals values; every value is aligned from the start of the message."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def value(self, signature: str, value: Any) -> None:
        """Appends one value of one complete type."""
        self.align(ALIGNMENT[signature[0]])
        match signature[0]:
            case kind if kind in FIXED:
                self.data += struct.pack(FIXED[kind], value.place if isinstance(value, Descriptor) else value)
            case "s" | "o":
                encoded = value.encode("utf-8")
                if 0 in encoded:
                    raise ValueError("a string of D-Bus holds no NUL")
                self.data += struct.pack("<I", len(encoded)) + encoded + b"\0"
            case "g":
                encoded = value.encode("ascii")
                self.data += bytes([len(encoded)]) + encoded + b"\0"
            case "v":
                inner, content = value
                self.value("g", inner)
                self.value(inner, content)
            case "(":
                for part, item in zip(split(signature[1:-1]), value, strict=True):
                    self.value(part, item)
            case "a":
                self._array(signature[1:], value)

    def _array(self, element: str, items: Sequence[Any]) -> None:
        at = len(self.data)
        self.data += bytes(4)
        # The padding up to the first element is there even without one, and is not counted.
        self.align(ALIGNMENT[element[0]])
        start = len(self.data)
        for item in items:
            self.value(element, item)
        struct.pack_into("<I", self.data, at, len(self.data) - start)


def split(signature: str) -> list[str]:
    """The complete types of a signature."""
    parts: list[str] = []
    at = 0
    while at < len(signature):
        end = at
        while signature[end] == "a":
            end += 1
        depth = 0
        while True:
            depth += {"(": 1, ")": -1}.get(signature[end], 0)
            end += 1
            if depth == 0:
                break
        parts.append(signature[at:end])
        at = end
    return parts


def method_call(
    serial: int, target: tuple[str, str, str], member: str, signature: str, arguments: Sequence[Any], descriptors: int
) -> bytes:
    """A message of type METHOD_CALL, in little endian. `target`: destination, object path, interface."""
    body = Writer()
    for part, argument in zip(split(signature), arguments, strict=True):
        body.value(part, argument)
    destination, path, interface = target
    header_fields: list[tuple[int, tuple[str, Any]]] = [
        (PATH, ("o", path)),
        (INTERFACE, ("s", interface)),
        (MEMBER, ("s", member)),
        (DESTINATION, ("s", destination)),
    ]
    if signature:
        header_fields.append((SIGNATURE, ("g", signature)))
    if descriptors:
        header_fields.append((UNIX_FDS, ("u", descriptors)))
    head = Writer()
    head.data += struct.pack("<cBBBII", b"l", METHOD_CALL, 0, 1, len(body.data), serial)
    head.value("a(yv)", header_fields)
    head.align(8)
    return bytes(head.data + body.data)


def answer_of(message: bytes) -> tuple[int, int, str, str]:
    """Type, serial of the call that it answers (0: none), name of the error, its text, of a whole message."""
    order = "<" if message[:1] == b"l" else ">"
    kind = message[1]
    body_size, _, fields_size = struct.unpack_from(f"{order}III", message, 4)
    at, end = 16, 16 + fields_size
    serial, name = 0, ""
    signature = ""
    while at < end:
        at += -at % 8
        code, length = message[at], message[at + 1]
        inner = message[at + 2 : at + 2 + length].decode("ascii")
        at += 3 + length
        if inner == "g":
            size = message[at]
            text = message[at + 1 : at + 1 + size].decode()
            at += size + 2
        elif inner in ("s", "o"):
            at += -at % 4
            (size,) = struct.unpack_from(f"{order}I", message, at)
            text = message[at + 4 : at + 4 + size].decode()
            at += size + 5
        else:  # u
            at += -at % 4
            (number,) = struct.unpack_from(f"{order}I", message, at)
            at += 4
            serial = number if code == REPLY_SERIAL else serial
            continue
        name = text if code == ERROR_NAME else name
        signature = text if code == SIGNATURE else signature
    words = ""
    if kind == ERROR and signature.startswith("s"):
        start = len(message) - body_size
        (size,) = struct.unpack_from(f"{order}I", message, start)
        words = message[start + 4 : start + 4 + size].decode(errors="replace")
    return kind, serial, name, words


class Bus:
    """A connection to a bus, for one or two calls."""

    def __init__(self, path: str | None = None) -> None:
        self.serial = 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT)
        try:
            self.socket.connect(path or SYSTEM_BUS)
            self._authenticate()
            self.call(("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus"), "Hello", "", (), ())
        except (OSError, BusError) as error:
            self.socket.close()
            raise BusError(f"no connection to the system bus: {error}") from error

    def _authenticate(self) -> None:
        """EXTERNAL: the kernel says who we are; then file descriptors are asked for."""
        self.socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        self._expect(b"OK ")
        self.socket.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        self._expect(b"AGREE_UNIX_FD")
        self.socket.sendall(b"BEGIN\r\n")

    def _expect(self, start: bytes) -> None:
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self.socket.recv(1)
            if not byte or len(line) > 4096:
                raise BusError("it closed the connection")
            line += byte
        if not line.startswith(start):
            raise BusError(f"it answers {line[:60]!r}")

    def call(
        self, target: tuple[str, str, str], member: str, signature: str, arguments: Sequence[Any], fds: Sequence[int]
    ) -> None:
        """Calls a method and waits for its answer, which holds nothing that we need.

        Raises:
            BusError: with what the other side says.
        """
        self.serial += 1
        message = method_call(self.serial, target, member, signature, arguments, len(fds))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.socket.sendmsg([message], ancillary)
            self.socket.sendall(message[sent:])
            while True:
                kind, answers, name, words = answer_of(self._message())
                if answers == self.serial and kind in (METHOD_RETURN, ERROR):
                    break
        except (OSError, struct.error, IndexError, UnicodeDecodeError) as error:
            raise BusError(f"{member}: {error}") from error
        if kind == ERROR:
            raise BusError(f"{member}: {' '.join(words.split()) or name}")

    def _message(self) -> bytes:
        head = self._exactly(16)
        order = "<" if head[:1] == b"l" else ">"
        body, _, header_fields = struct.unpack_from(f"{order}III", head, 4)
        rest = header_fields + (-header_fields % 8) + body
        if rest > LONGEST:
            raise BusError("it sent a message that is too long")
        return head + self._exactly(rest)

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.socket.recv(count)
            if not part:
                raise BusError("it closed the connection")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def start_unit(self, name: str, properties: Sequence[Property], fds: Sequence[int]) -> None:
        """StartTransientUnit: returns when the job is queued; how it goes, the stub tells."""
        typed = [(key, (signature, value)) for key, signature, value in properties]
        self.call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "fail", typed, ()), fds)

    def stop_unit(self, name: str) -> None:
        """StopUnit: SIGTERM, and SIGKILL after the unit's TimeoutStopSec."""
        self.call(MANAGER, "StopUnit", "ss", (name, "replace"), ())

    def close(self) -> None:
        self.socket.close()
