"""What a user's units of work give back when they end: what they show, held against what their user is charged with.

A process shows what it has mapped: a segment that four map shows four times, one that is mapped 64 times 64 times, a
page shared after fork(2) in each of the family, and an unmapped memfd nowhere; of a crowd of small ones not all are
listed. The kernel charges each page once, to
the cgroup that touched it first (cgroup-v2.rst, "Memory Ownership"). That cgroup need not be where the process is now:
systemd moves processes between the logins of a user when asked to. Out of `user-UID.slice` it does not, and its charge
keeps what ended logins have left behind: so the charge of all of it is what bounds the sum. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sparkhost.watchdog.cgroup import Charge
from sparkhost.watchdog.model import MIB, Candidate, Member

# What no process shows and is less counts for nothing: buffers of the kernel's, figures that are a moment old.
LEAST_UNSEEN = 64 * MIB


def is_all_charged(charge: Charge, largest: int) -> bool:
    """Whether a cgroup is charged with its processes' own memory. `largest`: what one of them shows, in bytes.

    Root may have moved one here that had grown elsewhere: its charge stays behind. No user can do that, so what all
    show may be believed then.
    """
    return largest <= charge.anonymous + max(LEAST_UNSEEN, charge.anonymous // 8)


def share_charge(found: list[Candidate], cgroup: str, charge: Charge, largest: int) -> list[Candidate]:
    """The units of work of one cgroup, at what they give back of its charge. `largest`: see `is_all_charged`.

    Where more is shown than charged, each counts for its share of the charge. What is charged and shown by nobody is a
    unit of its own, as old as the oldest process there: whoever came later is not to be taken for who took it. To end
    it is to end who shows at least half of all there is, or else all of the work.
    """
    anonymous, shared = sum(c.anonymous for c in found), sum(c.shared for c in found)
    own = charge.anonymous if is_all_charged(charge, largest) else anonymous
    held = charge.shared + locked_files(charge)
    if anonymous > own or shared > held:
        found = [
            replace(c, anonymous=part(c.anonymous, anonymous, own), shared=part(c.shared, shared, held)) for c in found
        ]
    rest = (max(0, own - anonymous), max(0, held - shared))
    open_ = [c for c in found if not c.protected]
    work = [c for c in open_ if not c.alone] or open_
    if sum(rest) < LEAST_UNSEEN or not work:
        return found
    most = max(work, key=lambda c: (c.size, c.key))
    if 2 * most.size >= sum(c.size for c in work):
        work = [most]
    oldest = min((c.first for c in found if c.first is not None), key=lambda m: (m.start, m.pid), default=None)
    return [*found, unseen(work, oldest, cgroup, *rest)]


def locked_files(charge: Charge) -> int:
    """Page cache that is locked (mlock(2)), at least: what cannot be anonymous or shared memory."""
    return max(0, charge.unevictable - charge.anonymous - charge.shared)


def unseen(work: list[Candidate], oldest: Member | None, cgroup: str, anonymous: int, shared: int) -> Candidate:
    """Work of a cgroup, for memory that one of it must hold and none shows. Its size is that memory alone."""
    largest = max(work, key=lambda c: (c.size, c.key))
    return Candidate(
        key=f"{cgroup}:unseen",
        name=f"{largest.name}{f' and {len(work) - 1} more' if len(work) > 1 else ''}, for memory that none shows",
        kind="session",
        cgroup=cgroup,
        owner=largest.owner,
        processes=sum(c.processes for c in work),
        anonymous=anonymous,
        shared=shared,
        first=oldest,
        freezer=largest.freezer,
        parts=tuple(work),
    )


def part(shown: int, sum_: int, real: int) -> int:
    """The share of what is real that somebody has who shows so much of the sum."""
    return shown if sum_ <= real else shown * real // sum_


def bound_shared(found: Iterable[Candidate], most: int | None) -> list[Candidate]:
    """Candidates whose charge is not known: together they share no more than the host has (`Shmem` of meminfo)."""
    found = list(found)
    shared = sum(c.shared for c in found)
    if most is None or shared <= most:
        return found
    return [replace(c, shared=part(c.shared, shared, most)) for c in found]
