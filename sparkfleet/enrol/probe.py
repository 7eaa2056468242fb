"""What a host is, read over a fresh login with the key: user, sudo, Python, machine, GPU, and who is using it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparkfleet.enrol.ssh import Answer, Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.foreign import line as line_of

MARK = "sparkfleet: "
LONGEST = 200
"""Characters of a value; of more digits no number is made."""
OLDEST_PYTHON = (3, 11)
"""What the code that runs on hosts is written for: Debian 12, Ubuntu 24.04."""

# sudo(8) says these in English under LC_ALL=C; no password would help.
NEVER = re.compile(r"not in the sudoers|not allowed|may not run|must have a tty|can't do that", re.IGNORECASE)


def values_of(output: str) -> dict[str, list[str]]:
    """What a script of ours said; whatever the user's shell printed around it is left out."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        if line.startswith(MARK):
            key, _, value = line.removeprefix(MARK).partition(" ")
            found.setdefault(key, []).append(line_of(value.strip(), LONGEST))
    return found


@dataclass(frozen=True)
class Seen:
    """A host as the probe saw it."""

    values: Mapping[str, Sequence[str]]

    def one(self, key: str) -> str:
        return next(iter(self.values.get(key, ())), "")

    @property
    def root(self) -> bool:
        return self.one("uid") == "0"

    @property
    def key_present(self) -> bool:
        """Whether the key that was asked for stands in the user's authorized_keys."""
        return "key" in self.values

    @property
    def sudo(self) -> str:
        """`free` (or root), `password`, `none` (no sudo there), or `never`."""
        if self.root:
            return "free"
        said = self.one("sudo")
        if said in ("free", "none"):
            return said
        return "never" if NEVER.search(said) else "password"

    @property
    def python(self) -> tuple[int, ...]:
        text = self.one("python")
        return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+(\.\d+)*", text) else ()

    def machine(self) -> str:
        """The machine in one line."""
        gpus = self.values.get("gpu", ())
        if gpus:
            gpu = "GPU " + ", ".join(gpus)
        elif "gpu_bus" in self.values:
            gpu = f"an NVIDIA GPU at {self.one('gpu_bus')}, without a loaded driver"
        else:
            gpu = "no NVIDIA GPU seen"
        return f"{self.one('os') or 'an unknown system'}, {self.one('arch')}, Linux {self.one('kernel')}, {gpu}"

    def in_use(self) -> Iterator[str]:
        """What tells that somebody uses the host, a line each; none on an idle one."""
        for login in self.values.get("login", ()):
            yield f"logged in: {login}"
        for terminal in self.values.get("terminal", ()):
            words = terminal.split()
            if len(words) == 3:
                user, pid, program = words
                yield f"kept open: {program} of {user} (pid {pid})"
        for job in self.values.get("job", ()):
            words = job.split(None, 5)
            if len(words) == 6 and words[3].isdecimal() and words[4].isdecimal():
                user, pid, cpu, rss, age, name = words
                memory = f"{int(rss) / 2**20:.1f} GiB"
                yield f"running: {name} of {user} (pid {pid}, for {duration(int(age))}, {cpu}% CPU, {memory})"

    def traits(self) -> Iterator[str]:
        """What a deploy is about, a line each: a factory host may well have swap on, and nobody uses it."""
        for swap in self.values.get("swap", ()):
            words = swap.split()
            if len(words) == 3 and words[1].isdecimal() and words[2].isdecimal():
                name, size, used = words[0], int(words[1]) // 1024, int(words[2]) // 1024
                yield f"swap is on: {name}, {size} MiB, {used} MiB of it in use"
        if "deployed" in self.values:
            yield "sparkfleet has been deployed to it before: /opt/sparkfleet is there"

    def state(self) -> str:
        """Load and uptime."""
        uptime = self.one("uptime")
        return f"load {self.one('load')}" + (f", up {duration(int(uptime))}" if uptime.isdecimal() else "")


def duration(seconds: int) -> str:
    """Seconds in words: `3 d 4 h`, `4 h 5 min`, `5 min`."""
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"


def look(route: Route, key_data: str | None) -> tuple[Answer, Seen | None]:
    """Logs in anew, with a key and without a person, and reads what the host is; None where no login came about.

    Raises:
        CommandFailed: the host is not reached, its key is not the pinned one, or a login runs no commands.
    """
    answer = route.script("probe.sh", f"{key_data or '-'}\n")
    if answer.denied:
        return answer, None
    if answer.lost:
        raise CommandFailed(f"{route.name}: {answer.reason}", ExitCode.UNREACHABLE)
    seen = Seen(values_of(answer.stdout))
    if "end" not in seen.values:
        raise CommandFailed(
            f"{route.name}: the login runs no commands: {answer.reason} (try `{route.where()}` by hand)",
            ExitCode.UNREACHABLE,
        )
    return answer, seen


def check(name: str, seen: Seen) -> None:
    """Refuses a host that a deploy could do nothing on. Raises CommandFailed with the remedy."""
    user = seen.one("user")
    admin = f"as an admin of the host: usermod -aG sudo {user}"
    if seen.sudo == "none":
        raise CommandFailed(f"{name}: there is no sudo: as root, apt install sudo, and usermod -aG sudo {user}")
    if seen.sudo == "never":
        raise CommandFailed(f"{name}: {user} may not use sudo ({seen.one('sudo').removeprefix('refused ')}): {admin}")
    if seen.python < OLDEST_PYTHON:
        has = f"is {seen.one('python')}" if seen.python else "is missing"
        raise CommandFailed(f"{name}: python3 {has}, 3.11 or later is needed (Ubuntu 24.04 and Debian 12 have it)")


def try_sudo(route: Route, user: str, password: str) -> None:
    """Tries the sudo password, once, on standard input.

    Raises:
        CommandFailed: it is wrong, or the user may not use sudo.
    """
    answer = route.script("sudo.sh", f"{password}\n")
    said = values_of(answer.stdout)
    if "accepted" in said:
        return
    if "refused" not in said:
        raise CommandFailed(f"{route.name}: {answer.reason}", ExitCode.UNREACHABLE)
    reason = said["refused"][0] or "it gave no reason"
    if NEVER.search(reason):
        raise CommandFailed(
            f"{route.name}: {user} may not use sudo ({reason}): as an admin of the host: usermod -aG sudo {user}"
        )
    raise CommandFailed(f"{route.name}: sudo refused the password ({reason}): run the same command again")
