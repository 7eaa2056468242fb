"""A line in PAM's common stacks, by a profile of pam-auth-update(8): never by editing what packages own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import MANAGED, File, NoFile, read_regular
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step

STACKS = Path("/etc/pam.d")
COMMON = STACKS / "common-session"
STATE = Path("/var/lib/pam")
TYPES = ("account", "auth", "password", "session", "session-noninteractive")


def lines_of(service: str, seen: frozenset[str] = frozenset()) -> Iterator[list[str]]:
    """The words of every session line of a service, included files in their places (pam.d(5))."""
    content = read_regular(STACKS / service)
    if content is None or service in seen:
        return
    for line in content.decode(errors="replace").replace("\\\n", " ").splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["@include"] and len(words) > 1:
            yield from lines_of(words[1], seen | {service})
        elif len(words) > 2 and words[0].lstrip("-") == "session" and words[1] in ("include", "substack"):
            yield from lines_of(words[2], seen | {service})
        elif words and words[0].lstrip("-") == "session":
            yield words


def touched() -> list[str]:
    """Every file that pam-auth-update may write; its answers in debconf's data base aside, which hold nothing new."""
    common = [str(STACKS / f"common-{name}") for name in TYPES]
    return [*common, *(str(STATE / name) for name in (*TYPES, "seen"))]


def pam_auth_update(*arguments: str) -> None:
    """Runs it without questions.

    Raises:
        Refused: the files were edited by hand. It then leaves them alone, and so do we (never --force).
        Failed: it is not there, or says no.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    command = ["pam-auth-update", "--package", *arguments]
    result = bounded.call(command, seconds=90, env=environment)
    output = " ".join((result.stderr + result.stdout).split())
    if "Local modifications" in output:
        raise Refused(
            f"pam-auth-update leaves {STACKS}/common-* alone, because they were edited by hand: settle that with "
            "`pam-auth-update` on the host, then deploy again"
        )
    if result.returncode:
        raise Failed(f"{' '.join(command)}: exit code {result.returncode}: {output or 'no message'}")


@dataclass(frozen=True)
class PamProfile(Resource):
    """A profile, and its line at work for `service`. `line`: words of the session line, in one string."""

    kind: ClassVar[str] = "pam_profile"
    path: str
    content: str
    line: str
    service: str

    def touches(self) -> list[str]:
        return [*touched(), self.path]

    def steps(self, context: Context) -> Iterator[Step]:
        found = [*File(self.path, self.content).steps(context)]
        yield from found
        enable = partial(pam_auth_update, "--enable", Path(self.path).name)
        if self.line.split() not in lines_of(COMMON.name):
            yield Step(str(COMMON), f"add `{self.line}` (pam-auth-update)", enable)
        elif found:
            yield Step(str(COMMON), "", enable)  # the line is there; the rest of a profile may be new
        elif self.line.split() not in lines_of(self.service):
            raise Refused(f"{STACKS / self.service} does not include {COMMON.name}, so PAM never comes to our line")


@dataclass(frozen=True)
class NoPamProfile(Resource):
    """No such profile, and no such line."""

    kind: ClassVar[str] = "no_pam_profile"
    path: str
    line: str

    def touches(self) -> list[str]:
        return [*touched(), self.path]

    def steps(self, context: Context) -> Iterator[Step]:
        there = self.line.split() in lines_of(COMMON.name)
        content = read_regular(Path(self.path))
        ours = content is not None and MANAGED.encode() in content
        if there or ours:
            says = f"take `{self.line}` out (pam-auth-update)" if there else ""
            yield Step(str(COMMON), says, self._disable)
        if ours:
            yield Step(self.path, "remove", NoFile(self.path).remove)

    def _disable(self) -> None:
        pam_auth_update("--remove", Path(self.path).name)
        if self.line.split() in lines_of(COMMON.name):
            raise Refused(f"`{self.line}` stands in {COMMON} by hand: take it out there, then deploy again")
