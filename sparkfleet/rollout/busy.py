"""Whether somebody's jobs run on a host: asked of its kernel, over a connection of its own, without root."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.mistakes import mistake
from sparkfleet.settings.problems import escaped

# cgroup.events says whether there are processes anywhere below (Documentation/admin-guide/cgroup-v2.rst).
QUESTION = (
    "sh -c 'cd /sys/fs/cgroup/training.slice 2>/dev/null || exit 0; for unit in */; do "
    'grep -qs "^populated 1" "$unit/cgroup.events" && echo "${unit%/}"; done; '
    "grep -qs . cgroup.procs && echo training.slice; exit 0'"
)
JOB = re.compile(r"spark-job-(\d+)-([0-9a-f]{8})\.service")
AGAIN = 15.0
"""Seconds between two looks at hosts that are waited for."""
AT_ONCE = 32


class Busy(StrEnum):
    """What is done about a host in use."""

    SKIP = "skip"
    WAIT = "wait"
    FORCE = "force"


@dataclass(frozen=True)
class Use:
    """Who uses a host. `problem`: it could not be asked."""

    by: tuple[str, ...]
    problem: str = ""

    def __bool__(self) -> bool:
        return bool(self.by)

    def __str__(self) -> str:
        more = f" and {len(self.by) - 3} more" if len(self.by) > 3 else ""
        return f"in use: {', '.join(self.by[:3])}{more}"


def read(answer: str) -> Use:
    """What the question's answer says; a host wrote it."""
    names = []
    for line in answer.splitlines()[:1000]:
        match = JOB.fullmatch(line.strip())
        names.append(f"job {match[2]} of uid {match[1]}" if match else escaped(line.strip())[:80])
    return Use(tuple(name for name in names if name))


def use_of(route: Route) -> Use:
    """Asks one host; never raises."""
    try:
        answer = route.with_options(ConnectTimeout="20").run(QUESTION)
        return read(answer.stdout) if answer.rc == 0 else Use((), f"not asked whether it is in use: {answer.reason}")
    except CommandFailed as error:
        return Use((), str(error))
    except Exception as error:
        return Use((), mistake(error))


def uses(routes: Mapping[str, Route]) -> dict[str, Use]:
    """Asks all of them at the same time."""
    if not routes:
        return {}
    with ThreadPoolExecutor(min(AT_ONCE, len(routes))) as pool:
        return dict(zip(routes, pool.map(use_of, routes.values()), strict=True))


def settled(
    routes: Mapping[str, Route], busy: Busy, longest: float, say: Callable[[str], None]
) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Does about hosts in use what `busy` says; `longest`: seconds that they are waited for in all.

    Returns the hosts to go on with, those in use with by whom, and those that could not be asked with why. A host that
    is waited for is let go only at a look at which no other of them was in use: what was free before may be no more.
    """
    until = time.monotonic() + longest
    said: dict[str, str] = {}
    while True:
        found = uses(routes)
        problems = {host: use.problem for host, use in found.items() if use.problem}
        in_use = {host: str(use) for host, use in found.items() if use}
        for host, by in in_use.items():
            if said.get(host) != by:
                say(f"{host}: {by}{AND_SO[busy]}")
        said = in_use
        if busy is Busy.FORCE:
            return [host for host in routes if host not in problems], {}, problems
        if not in_use or busy is Busy.SKIP or time.monotonic() >= until:
            return free(routes, in_use, problems), in_use, problems
        time.sleep(max(0.0, min(AGAIN, until - time.monotonic())))


AND_SO = {Busy.SKIP: ": skipped", Busy.WAIT: ": waiting", Busy.FORCE: ": going on all the same (busy: force)"}


def free(routes: Mapping[str, Route], *others: Mapping[str, str]) -> list[str]:
    return [host for host in routes if not any(host in other for other in others)]


def busy_of(text: str) -> Busy:
    """The option's value. Raises CommandFailed."""
    try:
        return Busy(text)
    except ValueError as error:
        expected: Sequence[str] = list(Busy)
        raise CommandFailed(
            f"--busy {escaped(text)}: expected one of {', '.join(expected)}", ExitCode.BAD_CONFIGURATION
        ) from error
