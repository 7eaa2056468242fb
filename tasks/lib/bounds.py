"""What a deploy hears from a host, within limits of time and size: the one reader of everything that comes over SSH.

pyinfra keeps every line that a host prints, and waits for a host that confirms nothing; paramiko reads a packet of
whatever length a host announces, also before its key is known, and keeps what comes beyond the window that it granted.
So commands are read here, not by pyinfra's reader, and paramiko's is told where to end, connection by connection. A
local command is read in the same way.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import gevent
from paramiko import SFTPClient, SFTPError, SSHException, Transport
from paramiko.channel import Channel, ChannelStderrFile
from paramiko.packet import Packetizer
from pyinfra import logger
from pyinfra.connectors.util import CommandOutput, OutputLine

from sparkfleet.foreign import ANSWER_BYTES, line

LINES = 10_000
"""Most lines of a command's output; an answer is one."""
RUN_BYTES = 4 * ANSWER_BYTES
"""Most that is heard over one connection; a first deploy of all measures hears less than 2 MiB."""
PACKET_BYTES = 1024 * 1024
"""Most bytes of a packet; OpenSSH's own limit is 256 KiB (PACKET_MAX_SIZE)."""
BANNER_BYTES = 8192
"""Most bytes of a line before the first packet; RFC 4253 has 255."""
UNREAD_BYTES = 2 * 64 * 2**15
"""Most bytes that wait to be read on a channel: twice the window that paramiko grants (Transport's default)."""

FEEDS = ("_feed", "_feed_extended")
"""paramiko's handlers of what comes on a channel."""

_HEARD: WeakKeyDictionary[Transport, int] = WeakKeyDictionary()


class TooMuch(EOFError):
    """A host says more than is read; the connection is closed. One line."""


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Ends what is inside after `seconds`, whatever it waits for. Raises TimeoutError, without a text."""
    timeout = gevent.Timeout(seconds, TimeoutError())
    timeout.start()
    try:
        yield
    finally:
        timeout.close()


def with_time(run_shell_command: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a connector's `run_shell_command`: `_timeout` holds for the whole of it.

    pyinfra's holds for the output only: a host may take no input, not confirm that it begins, or not say how it ended.
    """

    @functools.wraps(run_shell_command)
    def wrapper(self: Any, *args: Any, **arguments: Any) -> Any:
        with within(arguments.get("_timeout")):
            return run_shell_command(self, *args, **arguments)

    return wrapper


def read_output(
    stdout_buffer: Any, stderr_buffer: Any, timeout: int | None, print_output: bool, print_prefix: str
) -> CommandOutput:
    """In the place of pyinfra's `read_output_buffers`: what a command prints. Its errors are for people: plain text.

    Raises:
        TimeoutError: no end within `timeout` seconds; the channel is closed.
        TooMuch: the connection is closed.
    """
    heard = _Heard()
    named = {"stdout": stdout_buffer, "stderr": stderr_buffer}
    readers = [gevent.spawn(heard.read, name, stream) for name, stream in named.items()]
    channel: Channel | None = getattr(stdout_buffer, "channel", None)
    ended = False
    try:
        with within(timeout):
            for _ in gevent.iwait(readers):
                if heard.problem:
                    break
        ended = heard.problem is None
    finally:
        gevent.killall(readers)
        if channel is not None and not ended:
            channel.close()
    try:
        if heard.problem:
            raise heard.problem
        lines = heard.lines()
        if channel is not None:
            count(channel.get_transport(), heard.size)
    except TooMuch:
        if channel is not None:
            # Not the channel only: a host that does not end would go on to fill it.
            channel.get_transport().close()
        raise
    if print_output:
        for one in lines:
            logger.info(f"{print_prefix}{line(one.line)}")
    return CommandOutput(lines)


def count(transport: Transport, size: int) -> None:
    """Notes what came over a connection. Raises TooMuch."""
    _HEARD[transport] = _HEARD.get(transport, 0) + size
    if _HEARD[transport] > RUN_BYTES:
        raise TooMuch(f"all its answers together are longer than {RUN_BYTES // 1024**2} MiB")


class _Heard:
    """The output of one command, while it comes."""

    def __init__(self) -> None:
        self.texts = {"stdout": bytearray(), "stderr": bytearray()}
        self.size = 0
        self.problem: Exception | None = None

    def read(self, name: str, stream: Any) -> None:
        """Reads to the end of a stream, or to where it is too much. Raises nothing: gevent would print it."""
        try:
            more = reader(stream)
            while not self.problem and (chunk := more(65536)):
                self.size += len(chunk)
                if self.size > ANSWER_BYTES:
                    self.problem = TooMuch(f"the answer is longer than {ANSWER_BYTES // 1024**2} MiB")
                    return
                self.texts[name] += chunk
        except Exception as error:
            self.problem = self.problem or error

    def lines(self) -> list[OutputLine]:
        """All lines. Raises TooMuch."""
        if sum(text.count(b"\n") for text in self.texts.values()) > LINES:
            raise TooMuch(f"the answer has more than {LINES} lines")
        found = []
        for name, text in self.texts.items():
            each = text.decode(errors="replace").removesuffix("\n")
            said = each.split("\n") if each else []
            found += [OutputLine(name, line(one) if name == "stderr" else one) for one in said]
        return found


def reader(stream: Any) -> Callable[[int], bytes]:
    """What reads up to so many bytes of a stream, as they come; none at its end."""
    channel = getattr(stream, "channel", None)
    if channel is not None:
        read: Callable[[int], bytes] = channel.recv_stderr if isinstance(stream, ChannelStderrFile) else channel.recv
        return read
    read1: Callable[[int], bytes] | None = getattr(stream, "read1", None)
    return read1 or functools.partial(os.read, stream.fileno())


def with_longest_packet(read_all: Callable[..., bytes]) -> Callable[..., bytes]:
    """Wraps paramiko's `Packetizer.read_all`, which would wait for as many bytes as a host announces."""

    @functools.wraps(read_all)
    def wrapper(self: Any, n: int, check_rekey: bool = False) -> bytes:
        if n > PACKET_BYTES:
            raise SSHException(f"the host announces a packet of {n} bytes")
        return read_all(self, n, check_rekey)

    return wrapper


def with_longest_line(read_timeout: Callable[..., bytes]) -> Callable[..., bytes]:
    """Wraps paramiko's `Packetizer._read_timeout`, of which its `readline` wants more until there is a line's end."""

    @functools.wraps(read_timeout)
    def wrapper(self: Any, timeout: float) -> bytes:
        chunk = read_timeout(self, timeout)
        self.sparkfleet_unended = 0 if b"\n" in chunk else getattr(self, "sparkfleet_unended", 0) + len(chunk)
        if self.sparkfleet_unended > BANNER_BYTES:
            raise SSHException("the host does not speak SSH: its first line has no end")
        return chunk

    return wrapper


def with_window(feed: Callable[..., None]) -> Callable[..., None]:
    """Wraps how a channel takes data: a host that sends more than it was granted is hung up on."""

    @functools.wraps(feed)
    def wrapper(self: Channel, message: Any) -> None:
        feed(self, message)
        if len(self.in_buffer) + len(self.in_stderr_buffer) > UNREAD_BYTES:
            self.get_transport().close()

    return wrapper


class BoundedSFTP(SFTPClient):
    """paramiko's, that does not wait for as many bytes as a host announces, nor for ever."""

    def _read_all(self, n: int) -> bytes:
        if n > PACKET_BYTES:
            raise SSHException(f"the host announces {n} bytes for an answer")
        found: bytes = super()._read_all(n)  # type: ignore[misc] # untyped in paramiko
        return found


def open_sftp(transport: Transport, seconds: float) -> SFTPClient:
    """A way to upload files; each step that takes longer than `seconds` is an OSError. Raises SSHException."""
    with within(seconds):
        channel = transport.open_session()
        channel.settimeout(seconds)
        channel.invoke_subsystem("sftp")
        try:
            return BoundedSFTP(channel)
        except SFTPError as error:
            raise SSHException(f"no way to upload a file: {error}") from error


class BoundedTransport(Transport):
    """paramiko's, within these limits from the first byte on."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        limit(self)


def limit(transport: Transport) -> None:
    """Puts these limits into one connection; paramiko itself stays as it is."""
    packetizer = transport.packetizer
    if hasattr(packetizer.read_all, "__wrapped__"):
        return
    for name, with_limit in (("read_all", with_longest_packet), ("_read_timeout", with_longest_line)):
        setattr(packetizer, name, MethodType(with_limit(getattr(Packetizer, name)), packetizer))
    table = getattr(transport, "_channel_handler_table")  # noqa: B009
    feeds = {kind: with_window(handler) for kind, handler in table.items() if handler.__name__ in FEEDS}
    setattr(transport, "_channel_handler_table", {**table, **feeds})  # noqa: B010
