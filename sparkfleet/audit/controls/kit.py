"""What judges have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sparkfleet.audit.model import Evidence, Judgement, NoEvidence, Status
from sparkfleet.settings import HostSettings, HostSize, Share

MIB = 2**20
GIB = 2**30


def judged(holds: bool, wanted: str, saw: str) -> Judgement:
    return Judgement(Status.PASS if holds else Status.FAIL, wanted, saw)


def not_applicable(wanted: str, reason: str) -> Judgement:
    return Judgement(Status.NOT_APPLICABLE, wanted, reason)


def one_word(evidence: Evidence, name: str) -> str:
    """An observation that is one word.

    Raises:
        NoEvidence: it is something else.
    """
    words = evidence.text(name).split()
    if len(words) != 1:
        raise malformed(evidence, name)
    return words[0]


def number(evidence: Evidence, name: str) -> int:
    """An observation that is one whole number. Raises NoEvidence where it is something else."""
    try:
        return int(one_word(evidence, name))
    except ValueError as error:
        raise malformed(evidence, name) from error


def total_memory(evidence: Evidence) -> int:
    """MemTotal in bytes. Raises NoEvidence where the probe's line is another."""
    match = re.fullmatch(r"MemTotal: +(\d+) kB\s*", evidence.text("memory"))
    if not match:
        raise malformed(evidence, "memory")
    return int(match[1]) * 1024


def in_bytes(size: HostSize, evidence: Evidence) -> int:
    """A size of the fleet file on this host. Raises NoEvidence where it is a share of a memory that was not seen."""
    return size.of(total_memory(evidence)) if isinstance(size, Share) else int(size)


def counted(evidence: Evidence, name: str, of: str) -> list[str]:
    """The lines of a list that says its length or what it looked at first, such as `2 swap units`.

    Raises:
        NoEvidence: the first line is another.
    """
    first, *lines = evidence.text(name).strip("\n").split("\n")
    count, _, what = first.partition(" ")
    if what != of or not count.isdecimal():
        raise malformed(evidence, name)
    return lines


def blocks(evidence: Evidence, name: str) -> Iterator[Mapping[str, str]]:
    """What `systemctl show` printed for each unit. Raises NoEvidence where it is something else."""
    for block in evidence.text(name).strip().split("\n\n"):
        found = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" not in found:
            raise malformed(evidence, name)
        yield found


def unit(evidence: Evidence, name: str) -> Mapping[str, str]:
    """A unit of those that sshd's protection is about. Raises NoEvidence where the probe did not ask for it."""
    return unit_in(evidence, "ssh_units", name)


def unit_in(evidence: Evidence, observation: str, name: str) -> Mapping[str, str]:
    """A unit as PID 1 holds it. Raises NoEvidence where it is not in the observation."""
    for found in blocks(evidence, observation):
        if found["Id"] == name:
            return found
    raise NoEvidence(f"systemctl show says nothing about {name}")


def malformed(evidence: Evidence, name: str) -> NoEvidence:
    seen = evidence.observations[name]
    return NoEvidence(f"`{seen.command}` printed something else: {shortened(seen.output)}")


def shortened(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def listed(items: list[str], most: int = 5) -> str:
    """Some of the items, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


def about_the_fleet(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Stands where a control has a fleet judge instead."""
    raise NoEvidence("this control compares hosts")


def only_roots(evidence: Evidence, name: str, wanted: str) -> Judgement:
    """Whether every path of an observation (lines of owner, mode, path) is root's, and writable for root only."""
    wrong, lines = [], evidence.text(name).splitlines()
    for line in lines:
        match = re.fullmatch(r"(\d+) ([0-7]{4}) (/.*)", line)
        if not match:
            raise malformed(evidence, name)
        uid, mode, path = int(match[1]), int(match[2], 8), match[3]
        if uid != 0:
            wrong.append(f"{path} belongs to user {uid}")
        elif mode & 0o002 or (mode & 0o020 and not path.startswith("/usr/local")):
            # Debian gives /usr/local to the group staff, in which nobody is (Debian policy, 9.1.2).
            wrong.append(f"{path} has mode {mode:04o}")
    return judged(not wrong, wanted, listed(wrong) or f"{len(lines)} paths, all root's")
