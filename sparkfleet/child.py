"""Programs of others, run here within limits: of time, of what is kept of their output, and of what they leave behind.

Nothing else reads a child's output (but the probe and what runs on hosts, which have their own): ssh passes on whatever
a host says, and a host may never stop.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

KIB = 1024
MIB = 1024 * KIB
ERRORS = 64 * KIB
"""Bytes of standard error that are kept: the last ones, where a program says why it ended."""
GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL for a program that shares the terminal with us."""


class OutOfBounds(Exception):
    """The program went beyond a limit, and was ended. One line without a subject: "says more than 1 MiB"."""


class TooLate(OutOfBounds):
    """It took too long."""


class TooLong(OutOfBounds):
    """It said too much."""


@dataclass(frozen=True)
class Done:
    """How a program ended. `rc`: as subprocess has it, -N for signal N."""

    rc: int
    stdout: bytes
    stderr: bytes

    def lines(self) -> list[str]:
        """What it said on standard error, or, where that is nothing, on standard output; without empty lines."""
        text = (self.stderr.strip() or self.stdout).decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class Limits:
    """`seconds`: None for as long as a person wants. `most`: bytes of standard output."""

    seconds: float | None
    most: int = MIB
    last: bool = False
    """Whether of a longer output the last `most` bytes are kept, instead of the program being ended."""


def run(
    words: Sequence[str] | str,
    limits: Limits,
    data: bytes = b"",
    reply: Callable[[bytes | bytearray], bytes | None] | None = None,
    *,
    terminal: bool = False,
    **options: Any,
) -> Done:
    """Runs a program (a string: a shell's command line) with `data` on its standard input, and waits for its end.

    `reply` is shown the output as it grows, and gives what is to be written then; the time that it takes, as it may
    ask a person, does not count. Without it the input ends behind `data`. `terminal`: the program may ask a person, so
    it stays in our process group; others have a session of their own, and whatever they started is ended with them.
    `options` are for subprocess.Popen; a `stdin` or `stderr` of None there is left as ours is.

    Raises:
        TooLate, TooLong: nothing of it is left running.
        OSError: it cannot be started.
    """
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    given = {**pipes, "shell": isinstance(words, str), "start_new_session": not terminal, **options}
    process: subprocess.Popen[bytes] = subprocess.Popen(words, **given)
    try:
        output, errors = talk(process, limits, data, reply)
        try:
            return Done(process.wait(10), output, errors)
        except subprocess.TimeoutExpired as error:
            raise TooLate("does not end") from error
    finally:
        end(process, group=not terminal)


def end(process: subprocess.Popen[bytes], *, group: bool) -> None:
    """Ends a program, where it still runs, and its session with all that it has started."""
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter: it has become another user (sudo)
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)


def talk(
    process: subprocess.Popen[bytes],
    limits: Limits,
    data: bytes = b"",
    reply: Callable[[bytes | bytearray], bytes | None] | None = None,
) -> tuple[bytes, bytes]:
    """Reads to the end of both outputs, as `run` does. Raises TooLate or TooLong; the program still runs then."""
    output, errors, waiting = bytearray(), bytearray(), memoryview(data)
    until = None if limits.seconds is None else time.monotonic() + limits.seconds
    with selectors.DefaultSelector() as selector:
        streams = ((process.stdin, selectors.EVENT_WRITE), *((s, 1) for s in (process.stdout, process.stderr)))
        for stream, event in streams:
            if stream:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, event)
        while any(key.events == selectors.EVENT_READ for key in selector.get_map().values()):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise TooLate(f"no answer within {limits.seconds:g} s")
            for key, _ in selector.select(left):
                if process.stdin and key.fileobj is process.stdin:
                    waiting = _write(key.fd, waiting)
                    if not waiting:
                        selector.unregister(process.stdin)
                        if reply is None:
                            process.stdin.close()
                elif not (chunk := os.read(key.fd, 64 * KIB)):
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    _keep(errors, chunk, ERRORS)
                elif limits.last:
                    _keep(output, chunk, limits.most)
                elif len(output) + len(chunk) > limits.most:
                    raise TooLong(f"the answer is longer than {limits.most // MIB} MiB")
                else:
                    output += chunk
            asked = time.monotonic()
            if reply and not waiting and (answer := reply(output)) is not None:
                waiting = memoryview(answer)
                until = None if until is None else until + time.monotonic() - asked
                if process.stdin:
                    selector.register(process.stdin, selectors.EVENT_WRITE)
    return bytes(output), bytes(errors[-ERRORS:])


def _keep(held: bytearray, chunk: bytes, most: int) -> None:
    """Adds to what is held; where that is twice too much, the older part goes."""
    held += chunk
    if len(held) > 2 * most:
        del held[:-most]


def _write(descriptor: int, data: memoryview) -> memoryview:
    try:
        return data[os.write(descriptor, data[: 64 * KIB]) :]
    except BlockingIOError:
        return data
    except OSError:  # its reader has gone; why, is told by its exit status
        return data[:0]
