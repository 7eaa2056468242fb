"""Whose a process is: numbers of containers without root count as the account that they were lent to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sparkhost.base import small_files

# Far above what a host has.
MOST_RANGES = 10_000
# systemd's own division (uid-gid.md in its sources): people from 1000 on; 60514 to 65535 are Debian's, dynamic, nobody.
FIRST_PERSON, LAST_PERSON, FIRST_LARGE = 1000, 60513, 65536
NO_UID = 2**32 - 2


class Range(NamedTuple):
    """User numbers that an account may use in its containers (subuid(5))."""

    first: int
    last: int
    owner: int


def is_person(uid: int) -> bool:
    """Whether a user number is a person's, or of a range that one was given; not root's, nor a service's."""
    return FIRST_PERSON <= uid <= LAST_PERSON or FIRST_LARGE <= uid < NO_UID


def parse_subuid(text: bytes, passwd: bytes) -> tuple[Range, ...]:
    """The ranges of /etc/subuid, by their first number. `passwd`: /etc/passwd, for the names in it.

    Names of a directory service are looked up nowhere: the question may wait for ever. Lines that say nothing are
    left out, and so is what begins among the numbers of people and services.
    """
    numbers: dict[bytes, int] = {}
    for line in passwd.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and is_number(fields[2]):
            numbers[fields[0]] = int(fields[2])
    found = []
    for line in text.splitlines():
        fields = line.split(b":")
        if len(fields) != 3 or not is_number(fields[1]) or not is_number(fields[2]):
            continue
        owner = numbers.get(fields[0], int(fields[0]) if is_number(fields[0]) else None)
        first, count = int(fields[1]), int(fields[2])
        if owner is not None and count and first >= FIRST_LARGE:
            found.append(Range(first, first + count - 1, owner))
    return tuple(sorted(found[:MOST_RANGES]))


def is_number(text: bytes) -> bool:
    return len(text) <= 10 and text.isdigit()


def account_of(uid: int, ranges: Sequence[Range]) -> int:
    """The account behind a user number; the number itself where it was lent to nobody."""
    if uid < FIRST_LARGE or not ranges:
        return uid
    place = bisect_right(ranges, (uid, NO_UID, NO_UID)) - 1
    if place >= 0 and uid <= ranges[place].last:
        return ranges[place].owner
    return uid


def read_ranges(etc: Path = Path("/etc")) -> tuple[Range, ...]:
    """The ranges of a host; none where there is no such file."""
    try:
        return parse_subuid(small_files.read(str(etc / "subuid")), small_files.read(str(etc / "passwd")))
    except OSError:
        return ()
