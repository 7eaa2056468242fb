"""What launcher and stub say to each other over their socket pair, both being the same user's processes.

One value a message, by marshal(3py): it is part of the interpreter, while importing json takes as long as half a start
of Python, which every job waits for. It is not for data of somebody else, and gets none: the kernel says who has sent a
message, and both ends are run by one interpreter. The first message goes to the stub and brings file descriptors; among
them a memfd with what does not fit into a message: the command, its environment and the rest that a child inherits.
"""

from __future__ import annotations

import marshal
import os
import struct

# The C module below the public one, whose own imports (enum, selectors) would cost every job a sixth of its start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any
else:
    import _socket as socket

LONGEST = 8192
FDS = 5
PASSCRED = socket.SO_PASSCRED


class Broken(Exception):
    """The other side does not speak this protocol, or is not who it should be."""


def text(raw: bytes) -> str:
    """Any bytes as text; back by `raw`. Not os.fsdecode: both sides may have different locales."""
    return raw.decode("utf-8", "surrogateescape")


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def memfd(value: dict[str, Any]) -> int:
    """A file in memory that holds a value."""
    descriptor = os.memfd_create("spark-run", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as stream:
        stream.write(marshal.dumps(value))
    return descriptor


def read_memfd(descriptor: int) -> dict[str, Any]:
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        stream.seek(0)
        return expect_mapping(stream.read())


def expect_mapping(data: bytes) -> dict[str, Any]:
    try:
        value = marshal.loads(data)
    except (ValueError, EOFError, TypeError, MemoryError) as error:
        raise Broken("not a message") from error
    if not isinstance(value, dict):
        raise Broken("not a message")
    return value


def send(channel: socket.socket, value: dict[str, Any], fds: list[int] | None = None) -> None:
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    channel.sendmsg([marshal.dumps(value)], passed)


def receive(channel: socket.socket, uid: int) -> tuple[bytes, list[int]]:
    """The next message and its file descriptors; empty at the end. SO_PASSCRED must be set on the socket.

    Raises:
        Broken: the sender is another user (the kernel says who, by SCM_CREDENTIALS, unix(7)), and not root, whose
            script tells how a job ended.
    """
    size = socket.CMSG_SPACE(FDS * 4) + socket.CMSG_SPACE(12)
    try:
        data, ancillary, _, _ = channel.recvmsg(LONGEST, size, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []  # closed over there with a message unread
    fds: list[int] = []
    sender = None
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            count = len(content) // 4
            fds += struct.unpack(f"{count}i", content[: count * 4])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            sender = struct.unpack("3i", content[:12])[1]
    if data and sender not in (uid, 0):
        for descriptor in fds:
            os.close(descriptor)
        raise Broken(f"a message from user {sender}")
    return data, fds
