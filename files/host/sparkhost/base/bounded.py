"""The one way in which a deploy reads files and runs programs: each read and each run has an end, in size and in time.

Why: a user's file can be a FIFO, a link to /dev/zero or 100 GiB of holes, and a user's process can hold root's read of
/proc up for ever. Three doors:

- `read`: a file. Regular ones only; the open does not wait (O_NONBLOCK), the read ends at a size.
- `call`: a child process. Its output ends at a size, the process at a time, and with it its whole process group.
- `try_each`: something that may block in the kernel, where no signal reaches it. It is done in a child, which is left
  to itself when it does not come back.

tests/unit/test_bounded.py finds whatever else opens a file or starts a process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sparkhost.base.resource import Failed

MIB = 2**20
LARGEST_FILE = 8 * MIB
"""Bytes. The largest that deploys read are ld.so.cache listings and hash lists of a stack, below 4 MiB."""
LARGEST_OUTPUT = 8 * MIB
LARGEST_TABLE = 64 * MIB
"""Of all sockets of a host: users make as many as they like, some 150 bytes each."""
GRACE = 2.0
"""Seconds that a killed process gets to go away, and that a pipe stays open after its process has ended."""
Item = TypeVar("Item")


class TooLarge(Failed):
    """More than was to be read."""


class Late(Failed):
    """No end within the time that was given."""


def read(path: Path, limit: int = LARGEST_FILE, *, follow: bool = True) -> bytes:
    """The content of a regular file of at most `limit` bytes. `follow`: also where the last part is a link.

    Raises:
        Failed: it is something else, or larger. One line that names the file.
        OSError: it cannot be opened or read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Failed(f"{path} is not a regular file: move it away and deploy again")
        parts, room = [], limit + 1  # a file of /proc has no size: what comes is counted
        while room and (part := os.read(descriptor, min(room, MIB))):
            parts.append(part)
            room -= len(part)
    finally:
        os.close(descriptor)
    if not room:
        raise TooLarge(f"{path} has more than {limit // 1024} KiB: that is not what belongs there; move it away")
    return b"".join(parts)


def read_text(path: Path, limit: int = LARGEST_FILE, *, errors: str = "replace") -> str:
    """`read`, as UTF-8 text. What is none is replaced, unless `errors` says otherwise."""
    return read(path, limit).decode("utf-8", errors)


def call(
    arguments: Sequence[str],
    *,
    seconds: float,
    limit: int = LARGEST_OUTPUT,
    given: str = "",
    env: Mapping[str, str] | None = None,
    user: int | None = None,
    group: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a program from `/`, in a process group of its own, with `given` as its input; whatever its exit code is.

    `user`, `group`: whom it runs as, without any other group. `limit`: bytes of its output and messages together.

    Raises:
        TooLarge, Late: it was ended, and its group with it.
        Failed: it cannot be started. One line that names the program and blames its package.
    """
    groups: Sequence[int] | None = None if user is None else ()
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=env,
            user=user,
            group=group,
            extra_groups=groups,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise Failed(f"{arguments[0]}: no such command on this host") from error
    except OSError as error:
        raise Failed(f"{arguments[0]} cannot be run ({error.strerror}): is its package whole?") from error
    talk = _Talk(process, given.encode("utf-8", "surrogateescape"), shown(arguments), limit)
    try:
        talk.carry_out(time.monotonic() + seconds, seconds)
    except BaseException:
        end(process)
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
    code = process.wait()
    out, err = (bytes(part).decode("utf-8", "surrogateescape") for part in talk.heard)
    return subprocess.CompletedProcess(list(arguments), code, out, err)


def shown(arguments: Sequence[str]) -> str:
    """A command for a message: the words that tell which it is, not 400 characters of properties."""
    text = " ".join(arguments)
    return text if len(text) <= 100 else f"{text[:97]}..."


class _Talk:
    """Feeds a process and hears it out."""

    def __init__(self, process: subprocess.Popen[bytes], given: bytes, name: str, limit: int) -> None:
        self.process, self.given, self.name, self.limit = process, memoryview(given), name, limit
        self.heard = (bytearray(), bytearray())

    ended = False

    def carry_out(self, until: float, seconds: float) -> None:
        """Returns when the process has ended. Raises TooLarge or Late; then it has not."""
        exited = os.pidfd_open(self.process.pid)
        try:
            with selectors.DefaultSelector() as waiting:
                waiting.register(exited, selectors.EVENT_READ, self._note_the_end)
                self._register(waiting)
                while waiting.get_map():
                    ready = waiting.select(max(0.0, until - time.monotonic()))
                    if not ready and self.ended:
                        end(self.process)  # what it has left behind keeps the pipe open
                        return
                    if not ready:
                        raise Late(f"{self.name}: no answer within {seconds:g} s")
                    for key, _ in ready:
                        if not key.data():
                            waiting.unregister(key.fileobj)
                            until = min(until, time.monotonic() + GRACE) if self.ended else until
        finally:
            os.close(exited)

    def _register(self, waiting: selectors.BaseSelector) -> None:
        for stream, into in zip((self.process.stdout, self.process.stderr), self.heard, strict=True):
            assert stream
            os.set_blocking(stream.fileno(), False)
            waiting.register(stream, selectors.EVENT_READ, lambda s=stream, i=into: self._hear(s.fileno(), i))
        if self.process.stdin:
            os.set_blocking(self.process.stdin.fileno(), False)
            waiting.register(self.process.stdin, selectors.EVENT_WRITE, self._feed)

    def _note_the_end(self) -> bool:
        self.ended = True
        return False

    def _hear(self, descriptor: int, into: bytearray) -> bool:
        part = os.read(descriptor, 65536)
        into += part
        if sum(map(len, self.heard)) > self.limit:
            raise TooLarge(f"{self.name}: printed more than {self.limit // 1024} KiB, and was ended")
        return bool(part)

    def _feed(self) -> bool:
        assert self.process.stdin
        try:
            self.given = self.given[os.write(self.process.stdin.fileno(), self.given[:65536]) :]
        except BrokenPipeError:
            self.given = self.given[:0]  # it does not want to hear more: its exit code tells
        if not self.given:
            self.process.stdin.close()
        return bool(self.given)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process's group. One that hangs in the kernel is not waited for: its end is not ours to bring about."""
    # As long as it has not been waited for, its number is nobody else's.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)


def try_each(
    items: Sequence[Item], test: Callable[[Item], bool], *, seconds: float = 2.0, stalls: int = 10
) -> Iterator[tuple[Item, bool | None]]:
    """`test` of each item, done in a child; None where it did not come back within `seconds`.

    The next items get a new child. After `stalls` of them nothing more is tried: all the rest are None.
    """
    left = list(items)
    while left and stalls:
        for answer in _answers(tuple(left), test, seconds):
            yield left.pop(0), answer
        if left:
            yield left.pop(0), None
            stalls -= 1
    yield from ((item, None) for item in left)


def _answers(items: Sequence[Item], test: Callable[[Item], bool], seconds: float) -> Iterator[bool]:
    """The answers of one child, as far as it comes."""
    outlet, inlet = os.pipe()
    child = os.fork()
    if not child:
        _answer(inlet, items, test)
    os.close(inlet)
    try:
        with selectors.DefaultSelector() as waiting:
            waiting.register(outlet, selectors.EVENT_READ)
            for _ in items:
                if not waiting.select(seconds) or not (found := os.read(outlet, 1)):
                    return
                yield found == b"1"
    finally:
        os.close(outlet)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        until = time.monotonic() + 0.2
        while not os.waitpid(child, os.WNOHANG)[0] and time.monotonic() < until:
            time.sleep(0.01)


def _answer(inlet: int, items: Sequence[Any], test: Callable[[Any], bool]) -> NoReturn:
    """The child's part. It keeps none of the parent's ways to the outside open: the deploy ends without it."""
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nowhere, descriptor)
        for item in items:
            os.write(inlet, b"1" if test(item) else b"0")
    finally:
        os._exit(0)
