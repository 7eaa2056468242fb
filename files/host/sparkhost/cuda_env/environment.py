"""The environment that every kind of session gets: /etc/environment, and an EnvironmentFile= for services.

/etc/environment is read by pam_env(8) for each login by ssh, su and on the console, and for each cron job, and by
systemd's user managers (environment.d(5): Debian and Ubuntu link 99-environment.conf to it).
"""

from __future__ import annotations

import contextlib
import re
import signal
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base.block import Block, put_in, take_out
from sparkhost.base.diff import text_diff
from sparkhost.base.files import File, NoFile, make_directories, read_regular, write_atomic
from sparkhost.base.pid1 import BOOTED, MANAGER_OBJECT, run
from sparkhost.base.resource import Check, Context, Failed, Refused, Resource, Step

ENVIRONMENT = Path("/etc/environment")
# PATH of sshd, login, su and root together, where /etc/environment sets none: what Ubuntu writes there.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games:/usr/local/games"
# pam_env reads lines of 1024 bytes up to Linux-PAM 1.5.2, and ignores the file from a longer one on.
LONGEST_LINE = 1000
MANAGERS = "user@*.service"
# There while user managers are running that started before our last change: a run that dies is made up for.
OUTDATED = Path("/run/sparkfleet/user-managers-outdated")


def assignments(text: str) -> dict[str, str]:
    """The variables that a text for pam_env(8) sets: the last one of a name wins, quotes around values go."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if match := re.match(r"[ \t]*(?:export )?([A-Za-z0-9_]+)=([^#]*)", line):
            value = match[2].strip()
            if value[:1] in ("'", '"'):
                value = value[1:].removesuffix(value[0])
            found[match[1]] = value
    return found


def in_front(directory: str, value: str) -> str:
    """A search path with `directory` first and once, and without empty elements (they mean: the current directory)."""
    rest = [element for element in value.split(":") if element and element != directory]
    return ":".join(dict.fromkeys([directory, *rest]))


def environment_lines(text: str, values: Mapping[str, str], front: Mapping[str, str]) -> list[str]:
    """`NAME=value` lines: `front` puts directories in front of what `text` sets already, `values` are as they are.

    Raises:
        Failed: a line would be longer than pam_env reads.
    """
    before = {"PATH": DEFAULT_PATH, **assignments(text)}
    wanted = {name: in_front(directory, before.get(name, "")) for name, directory in front.items()}
    lines = []
    for name, value in {**wanted, **values}.items():
        # Quotes are for a shell that reads the file; pam_env and systemd take them off.
        plain = re.fullmatch(r"[A-Za-z0-9_./:,+=@%~-]*", value)
        lines.append(f"{name}={value}" if plain else f'{name}="{value}"')
        if len(lines[-1]) > LONGEST_LINE:
            raise Failed(f"{ENVIRONMENT}: {name} would be {len(lines[-1])} characters long, pam_env reads 1000")
    return lines


def read_text(path: Path) -> str | None:
    """A text file in whatever encoding, so that writing it back changes no byte; None where there is none."""
    content = read_regular(path)
    return None if content is None else content.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class EnvironmentBlock(Resource):
    """Our block in /etc/environment; taken out where the directory `needs` is absent (empty: always)."""

    kind: ClassVar[str] = "environment_block"
    name: str
    needs: str
    values: dict[str, str]
    front: dict[str, str]

    @property
    def _block(self) -> Block:
        return Block(self.name, (*self.front, *self.values))

    def _wanted(self, old: str | None) -> str | None:
        """The new text; None: no file."""
        rest = take_out(old or "", self._block)
        if self.needs and Path(self.needs).is_dir():
            return put_in(old, environment_lines(rest.text, self.values, self.front), self._block)
        if not rest.found:
            return old
        return None if rest.new_file and not rest.text else rest.text

    def steps(self, context: Context) -> Iterator[Step]:
        path = ENVIRONMENT.resolve()  # the file is edited, not the link that may lead to it
        old = read_text(path)
        new = self._wanted(old)
        if new == old:
            return
        before = (old or "").encode("utf-8", "surrogateescape")
        after = (new or "").encode("utf-8", "surrogateescape")
        found = take_out(old or "", self._block).found
        present = self.needs and Path(self.needs).is_dir()
        verb = ("update" if found else "add") if present else "take out"
        diff = text_diff(str(ENVIRONMENT), before, after)
        yield Step(str(ENVIRONMENT), f"{verb} our block", partial(self._write, path), diff)

    def _write(self, path: Path) -> None:
        old = read_text(path)
        new = self._wanted(old)
        if user_managers():
            make_directories(OUTDATED.parent)
            write_atomic(OUTDATED, b"", 0o644)
        if new is None:
            path.unlink()
            return
        mode, uid, gid = 0o644, 0, 0
        if old is not None:
            status = path.stat()
            mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        write_atomic(path, new.encode("utf-8", "surrogateescape"), mode, uid, gid)


@dataclass(frozen=True)
class FileWith(File):
    """A file of ours that is there only where the directory `needs` is."""

    kind: ClassVar[str] = "file_with"
    needs: str = ""

    def steps(self, context: Context) -> Iterable[Step]:
        there = Path(self.needs).is_dir()
        return super().steps(context) if there else NoFile(self.path).steps(context)


@dataclass(frozen=True)
class EnvironmentFile(Resource):
    """The same values as a file for `EnvironmentFile=` (systemd.exec(5)), below the comment `header`."""

    kind: ClassVar[str] = "environment_file"
    path: str
    header: str
    name: str
    needs: str
    values: dict[str, str]
    front: dict[str, str]

    def _file(self) -> FileWith:
        block = Block(self.name, (*self.front, *self.values))
        others = take_out(read_text(ENVIRONMENT.resolve()) or "", block).text
        lines = environment_lines(others, self.values, self.front)
        return FileWith(self.path, self.header + "".join(f"{line}\n" for line in lines), needs=self.needs)

    def steps(self, context: Context) -> Iterable[Step]:
        return self._file().steps(context)


@dataclass(frozen=True)
class EnvironmentOverrides(Check):
    """Reports files that give a variable of ours another value in some kinds of session only, and leaves them.

    Looks at profile.d, at environment.d and at pam_env.conf: /etc/environment's values come before theirs.
    """

    kind: ClassVar[str] = "environment_overrides"
    ours: list[str]
    needs: str
    values: dict[str, str]

    def check(self, context: Context) -> None:
        if not Path(self.needs).is_dir():
            return
        patterns = ("profile.d/*.sh", "environment.d/*.conf", "security/pam_env.conf")
        found = []
        for path in sorted(path for pattern in patterns for path in Path("/etc").glob(pattern)):
            if str(path) not in self.ours and path.is_file():
                found += [f"{path} sets {name}" for name in other_values(read_text(path.resolve()) or "", self.values)]
        if found:
            raise Refused(
                f"not the same in every session: {', '.join(found)} to another value: "
                "take it out there, or set it in the fleet file (cuda_env)"
            )


def other_values(text: str, values: Mapping[str, str]) -> list[str]:
    """Names of `values` that a script or configuration sets to something else, in order."""
    found = []
    for line in text.split("\n"):
        if match := re.match(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)(?:=|\s+(?:DEFAULT|OVERRIDE)=)(.*)", line):
            name, value = match[1], match[2].strip().strip("'\"")
            if name in values and value != values[name] and name not in found:
                found.append(name)
    return found


def user_managers() -> list[str]:
    """The units of all running `systemd --user`, as PID 1 knows them: what a process says of itself is not asked."""
    if not BOOTED.is_dir():
        return []
    listing = run("systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend", MANAGERS)
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


@dataclass(frozen=True)
class UserManagers(Resource):
    """Makes running `systemd --user` managers read /etc/environment again after `EnvironmentBlock` changed it.

    SIGHUP is their daemon-reload (systemd(1)): running services stay, new ones get the new values. Managers of
    lingering users would otherwise keep the old ones until the next boot.
    """

    kind: ClassVar[str] = "user_managers"

    def steps(self, context: Context) -> Iterator[Step]:
        if OUTDATED.exists() or (context.will_change(ENVIRONMENT) and user_managers()):
            yield Step("user-managers", "read /etc/environment again (daemon-reload)", self._signal)

    def _signal(self) -> None:
        for unit in user_managers():
            # PID 1 is their parent: it signals that process, or none. By busctl: systemctl's option has two names.
            with contextlib.suppress(Failed):  # its user has logged out
                run("busctl", "call", *MANAGER_OBJECT, "KillUnit", "ssi", unit, "main", str(int(signal.SIGHUP)))
        OUTDATED.unlink()
