"""Stays with a job until it is over: signals go there, its terminal and its messages come here."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

from sparkhost.launcher import channel as messages
from sparkhost.launcher.channel import Broken
from sparkhost.launcher.terminal import Terminal

FORWARDED = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
)  # fmt: skip
TICK = 5.0
"""Seconds between two looks at what the job uses of the GPU."""


class Ending:
    """How a job ended, as far as is known.

    Attributes:
        started: whether its command was run; `failed` says why not.
        code: as a shell has it; None where the stub could not tell, for it was killed.
        peak, gpu_peak: memory.peak, and the most GPU memory that was seen; bytes.
        unit: what the unit's end said: result, code, status, peak, oom, oom_kill.
        sent: signals that the user sent by way of the launcher.
    """

    def __init__(self, started: bool = False, unit: dict[str, str] | None = None, sent: Sequence[int] = ()) -> None:
        self.started = started
        self.failed = ""
        self.code: int | None = None
        self.peak: int | None = None
        self.gpu_peak: int | None = None
        self.unit = unit or {}
        self.sent = list(sent)

    def take(self, data: bytes) -> None:
        """Notes a message of the stub (JSON), or of the script that runs when the unit is over (words)."""
        if data.startswith(b"result="):
            self.unit = parse_end(data.decode(errors="replace"))
            return
        message = messages.expect_mapping(data)
        if isinstance(message.get("started"), str):
            self.started = True
        if isinstance(message.get("failed"), str):
            self.failed = message["failed"]
        code = message.get("ended", message.get("code"))
        self.code = code if type(code) is int else self.code
        self.peak = message["peak"] if type(message.get("peak")) is int else self.peak


def parse_end(line: str) -> dict[str, str]:
    """The words `key=value` of a unit's end."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


@contextlib.contextmanager
def caught(numbers: tuple[signal.Signals, ...]) -> Iterator[int]:
    """Signals as bytes to be read from a file descriptor, but for those that were ignored already (nohup(1))."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {}
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, lambda *_: None)
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous)
        os.close(reading)
        os.close(writing)


def attend(
    channel: socket.socket,
    terminal: Terminal | None = None,
    until_started: bool = False,
    look: Callable[[], int | None] | None = None,
) -> Ending:
    """Attends a job to its end, which is when systemd lets go of the socket.

    `until_started`: returns when the command runs, or cannot. `look`: GPU memory of the job, bytes.

    Raises:
        Broken: a message that is none, or is from another user.
    """
    ending = Ending()
    uid = os.getuid()
    with caught(FORWARDED) as signals:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(signals, select.POLLIN)
        while True:
            if terminal:
                terminal.register(poll)
            ready = dict(poll.poll(TICK * 1000 if look else None))
            if look and ending.started and not ready.get(channel.fileno()):
                ending.gpu_peak = max((n for n in (ending.gpu_peak, look()) if n is not None), default=None)
            if ready.get(signals):
                forward(channel, os.read(signals, 256), terminal, ending)
            if terminal:
                terminal.carry(ready)
            if ready.get(channel.fileno()):
                data, fds = messages.receive(channel, uid)
                if not data or fds:
                    if fds:
                        raise Broken("a message with file descriptors")
                    return ending
                ending.take(data)
                if until_started and (ending.started or ending.failed):
                    return ending


def forward(channel: socket.socket, numbers: bytes, terminal: Terminal | None, ending: Ending) -> None:
    """Sends signals on to the job; the size of the window by way of its terminal, if it has one of its own."""
    for number in numbers:
        if terminal and number == signal.SIGWINCH:
            terminal.resize()
            continue
        if number != signal.SIGWINCH:
            ending.sent.append(number)
        with contextlib.suppress(OSError):
            messages.send(channel, {"signal": number})
