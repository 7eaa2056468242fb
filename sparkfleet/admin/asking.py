"""Commands on hosts over the way that audits and deploys take: the fleet's host keys, bounded output, hosts at once."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from sparkfleet import child
from sparkfleet.audit.password import SudoPassword
from sparkfleet.enrol.ssh import Answer, Route
from sparkfleet.exit_codes import CommandFailed

AT_ONCE = 64
SSH = {"BatchMode": "yes", "ConnectTimeout": "20", "ServerAliveInterval": "15", "ServerAliveCountMax": "4"}
KEPT = 256 * 1024
"""Bytes of what a command says on one host; the last ones."""
LOST = 255
BEGUN = "sparkfleet: begun"
"""What a root shell says before it runs the command."""
T = TypeVar("T")


def connected(route: Route) -> Route:
    """The same without a person: nothing is asked for, and a dead connection is given up."""
    return route.with_options(**SSH)


def on_all(routes: Sequence[Route], act: Callable[[Route], T]) -> list[T]:
    """What `act` returns for every host, in their order; hosts at the same time."""
    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(routes)))) as pool:
        return list(pool.map(act, routes))


def ask(route: Route, command: str, data: bytes = b"", *, seconds: float) -> Answer:
    """Runs a command in the login user's shell; of a longer output the last `KEPT` bytes are kept.

    It never raises for a host's sake: one that is over time is an answer with `LOST` and the reason.

    Raises:
        CommandFailed: there is no ssh on this machine.
    """
    words = [*connected(route).words(), command]
    try:
        done = child.run(words, child.Limits(seconds, KEPT, last=True), data)
    except FileNotFoundError as error:
        raise CommandFailed("there is no ssh: install OpenSSH's client (apt install openssh-client)") from error
    except child.OutOfBounds as error:
        return Answer(LOST, "", str(error))
    output = done.stdout[-KEPT:].decode(errors="replace")
    if len(done.stdout) > KEPT:
        output = f"… (only the last {KEPT // 1024} KiB are shown)\n{output.partition(chr(10))[2]}"
    return Answer(done.rc, output, done.stderr.decode(errors="replace"))


def ask_as_root(route: Route, command: str, password: SudoPassword, data: bytes = b"", *, seconds: float) -> Answer:
    """The same as root. Where sudo wants a password it goes in on sudo's standard input: no process list has it.

    Raises:
        CommandFailed: there is no ssh on this machine.
    """
    # A command that has begun must not begin twice, whatever it says and ends with: its shell says first that it has.
    quoted = shlex.quote(f"echo {BEGUN}; {command}")
    answer = ask(route, f"LC_ALL=C sudo -n -- sh -c {quoted}", data, seconds=seconds)
    if not has_begun(answer) and answer.rc == 1 and "sudo: a password is required" in answer.stderr:
        word = password.get()
        if not word:
            return replace(answer, stderr=password.problem or answer.stderr)
        # -k: without it sudo would not read the password where it remembers one, and the command would.
        given = word.encode() + b"\n" + data
        answer = ask(route, f"LC_ALL=C sudo -k -S -p '' -- sh -c {quoted}", given, seconds=seconds)
    return replace(answer, stdout=answer.stdout.removeprefix(f"{BEGUN}\n"))


def has_begun(answer: Answer) -> bool:
    """Whether the command was started; of a long output the beginning is not kept, and then it was."""
    return answer.stdout.startswith((BEGUN, "…"))
