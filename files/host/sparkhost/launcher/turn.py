"""Waits for a job's turn: asks the helper again and again, with the ticket that holds the place in its queue.

Nobody else waits for this process: the helper forgets a ticket that is not shown for a while (`queue.STALE`).
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from sparkhost.base.units import show_duration
from sparkhost.launcher import client
from sparkhost.launcher.client import Busy, Trouble
from sparkhost.launcher.options import Options
from sparkhost.launcher.request import Leave

if TYPE_CHECKING:
    import socket

EVERY = 2.0
"""Seconds between two questions."""
PATIENCE = 10.0
"""Seconds of a helper that has too many requests, after which a job that does not wait gives up."""
GAVE_UP = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT."""


def ask(options: Options, theirs: socket.socket, ticket: str | None) -> socket.socket:
    """Asks for the job; `theirs`: its end of the socket pair."""
    wanted = (options.memory, options.time, options.name, options.host_ipc, options.wait, ticket)
    return client.send(client.start_message(*wanted), [theirs.fileno()])


def await_turn(options: Options, asked: socket.socket, theirs: socket.socket) -> dict[str, Any]:
    """The helper's answer, once it has started the job. `asked`: the connection with the first question.

    Raises:
        Trouble: there will be no job: refused, `--wait=TIME` is over, or Ctrl-C.
    """
    since = time.monotonic()
    ticket, shown = None, ""
    try:
        while True:
            try:
                told = client.receive(asked)
            except Busy:
                if ticket is None and time.monotonic() - since > PATIENCE:
                    raise
            else:
                if "wait" not in told:
                    return told
                ticket, place = str(told["wait"]["ticket"]), str(told["wait"]["place"])
                if shown != place:
                    print(f"spark-run: waits, place {place}: {told['error']} (Ctrl-C gives up)", file=sys.stderr)
                    shown = place
            waited = time.monotonic() - since
            if ticket and options.wait_at_most is not None and waited >= options.wait_at_most:
                leave(ticket)
                raise Trouble(f"not started: it has waited for {show_duration(waited)} (--wait)")
            time.sleep(EVERY if ticket else 0.2)
            asked = ask(options, theirs, ticket)
    except KeyboardInterrupt:
        if ticket:
            leave(ticket)
        raise Trouble("not started: you have given up", GAVE_UP) from None


def leave(ticket: str) -> None:
    """Gives the place up. Where that fails, the helper finds out by itself."""
    with contextlib.suppress(Trouble, OSError):
        client.ask(Leave(ticket))
