"""`spark-run -- COMMAND`: asks for a job, as soon as it can; what goes on from there is in `stay`."""

from __future__ import annotations

import sys
import time

from sparkhost.launcher import channel as messages
from sparkhost.launcher import client
from sparkhost.launcher.client import Trouble

# The C module below the public one, whose imports take longer than asking for a job does.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from sparkhost.launcher.options import Options
else:
    import _socket as socket

CANNOT_START = 125
"""Exit code where there was no job: as `timeout` and `nohup` have it for trouble of their own."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The launcher's and the job's end. The kernel adds to every message who sent it (SO_PASSCRED, unix(7))."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, messages.PASSCRED, 1)
    return ours, theirs


def look_first(options: Options) -> None:
    """The look at the memory.

    Raises:
        Trouble: there is too little, and that is a reason to stop; or the host's settings cannot be read.
    """
    from sparkhost.launcher import config as configuration
    from sparkhost.launcher import preflight, terminal

    try:
        config = configuration.read()
    except configuration.BadConfig as error:
        raise Trouble(str(error)) from error
    if options.wait or config.admission == "wait":
        if options.drop_cache:
            preflight.drop_cache()
        return  # the helper looks, and starts it when there is room
    need = options.need or options.memory or config.need
    preflight.check(need, config.preflight, options.drop_cache, terminal.usable() and not options.detach)


def launch(options: Options) -> int:
    """Runs a job; the exit code for the shell.

    Raises:
        Trouble: there was no job.
    """
    if options.preflight:
        look_first(options)
    started = time.time()
    clock = time.monotonic()
    ours, theirs = pair()
    try:
        try:
            wanted = (options.memory, options.time, options.name, options.host_ipc, options.wait)
            asked = client.send(client.start_message(*wanted), [theirs.fileno()])
            from sparkhost.launcher import stay, turn  # while PID 1 starts the unit

            told = turn.await_turn(options, asked, theirs)
        finally:
            theirs.close()
        return stay.follow(options, told, ours, started, clock)
    finally:
        ours.close()


def main(options: Options) -> int:
    try:
        return launch(options)
    except Trouble as trouble:
        for line in str(trouble.args[0]).splitlines():
            print(f"spark-run: {line}", file=sys.stderr)
        return trouble.args[1] if len(trouble.args) > 1 and trouble.args[1] else CANNOT_START
    except (messages.Broken, OSError) as error:
        where = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
        print(f"spark-run: {getattr(error, 'strerror', None) or error}{where}", file=sys.stderr)
        return CANNOT_START
