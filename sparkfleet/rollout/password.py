"""The sudo password of a rollout: asked for once, although each batch is a deploy and an audit of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.sudo_password import PASSWORD_COMMAND, NoSudoPassword, sudo_password
from sparkfleet.terminal import has_terminal

QUESTION = "sh -c 'test $(id -u) = 0 || sudo -n true'"
AT_ONCE = 32


@contextmanager
def asked_once(routes: Iterable[Route]) -> Iterator[None]:
    """Asks for it now where a host wants one, so that nobody has to sit at the terminal at the last batch.

    What runs below gets it by `$SPARKFLEET_SUDO_PASSWORD_COMMAND`, from this process's memory: the file has no name,
    and only this user (and root) can open it by /proc (memfd_create(2), proc_pid_fd(5)).

    Raises:
        CommandFailed: nothing was given.
    """
    if os.environ.get(PASSWORD_COMMAND) or not has_terminal() or not any_wants(list(routes)):
        yield
        return
    try:
        secret = sudo_password("(for every host that wants one)")
    except NoSudoPassword as problem:
        raise CommandFailed(str(problem), ExitCode.BAD_CONFIGURATION) from problem
    descriptor = os.memfd_create("sparkfleet-sudo")
    try:
        os.write(descriptor, f"{secret}\n".encode())
        os.environ[PASSWORD_COMMAND] = f"cat /proc/{os.getpid()}/fd/{descriptor}"
        yield
    finally:
        os.environ.pop(PASSWORD_COMMAND, None)
        os.close(descriptor)


def any_wants(routes: list[Route]) -> bool:
    """Whether sudo asks for a password on one of them; who does not answer is heard of later."""
    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(routes)))) as pool:
        return any(pool.map(wants, routes))


def wants(route: Route) -> bool:
    try:
        answer = route.with_options(ConnectTimeout="20").run(QUESTION)
    except CommandFailed:
        return False
    return answer.rc != 0 and not answer.lost
