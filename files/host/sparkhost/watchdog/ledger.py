"""Who has settled where: what each unit of work may call its own. Pure.

Memory belongs to who has settled there. What a unit held for SETTLED without gaining is its own ground, and so are its
peaks of the last hour: a training job that swings between 20 and 60 GiB owns 60. Who stands on new ground when memory
gets short is who took it, however large others are. Growth in an hour of plenty (twice `term_below`) is nobody's fault;
in an hour with troughs it may be a leak. A new instance (another first process) owns nothing yet.

A sample is taken twice a minute while there is plenty, each second while there is not, when memory gets short, and when
less is available than at any sample of these five minutes: short peaks would be missed, and they are somebody's. An
account has 24 figures of time and a few more; it is made anew at each sample (3 to 4 us), so that a decision's samples
stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from sparkhost.watchdog.model import GIB, MIB, Account, Candidate, Ledger, Look, Mark, Policy

# Seconds without gaining more than a little, after which what one holds is one's own. With `little`, a rate: what
# gains less than 25 MiB a minute settles as it goes; heaps creep so, and a leak of 50 MiB a minute must not.
SETTLED = 120.0
# Peaks are kept for an hour, in spans of five minutes; lows for a minute, in spans of five seconds.
PEAK_SPAN, LOW_SPAN, SPANS = 300.0, 5.0, 12
# Growth `grown` is since a mark that is one to two of these old.
MARK_EVERY = 1.0
# Accounts of units at most; what is smaller than `SMALL` has none of its own unless it had one. Those share one by
# owner, of which there are so many, and one for all the rest.
MOST, SMALL, MOST_OWNERS, REST = 512, 64 * MIB, 64, "small:rest"
# A unit that is not listed keeps its account for so long: a listing may miss somebody.
FORGOTTEN = 60.0
# Between two samples: while there is plenty (about: a regular one would always meet the same phase of a job); while
# there is less than twice `term_below`; while somebody is about to be ended for a promise.
SELDOM, OFTEN, CLOSELY = 30.0, 1.0, 0.25
GOLDEN = 0.6180339887
TICKS = 100.0  # a second, of a process's start: USER_HZ, which is 100 wherever Linux has a GPU


def little(total: int) -> int:
    """Bytes that are no gain: 50 MiB on a host of 120 GiB."""
    return max(2 * MIB, min(50 * MIB, total // 2400))


def least(policy: Policy) -> int:
    """Bytes below which noise decides who took more: 512 MiB with thresholds of a training host."""
    return min(GIB // 2, max(policy.term_below // 32, policy.smallest_victim // 4))


def party(candidate: Candidate) -> str:
    """Whose it is: what one user takes with many units is summed. A service or a container of root's is its own."""
    if candidate.kind == "system" or (candidate.kind == "container" and not candidate.owner):
        return candidate.key
    return f"user {candidate.owner}"


def is_comfortable(look: Look, policy: Policy) -> bool:
    return look.available > 2 * policy.term_below


def is_due(ledger: Ledger, look: Look, policy: Policy) -> bool:
    """Whether another sample is to be taken, for the ledger's sake."""
    if ledger.time is None:
        return True
    if policy.over_promise == "end" and ledger.promises:
        every = CLOSELY if ledger.over else OFTEN
    else:
        uneven = SELDOM * (0.5 + ledger.time * GOLDEN % 1)
        every = uneven if is_comfortable(look, policy) else OFTEN
    if ledger.least and look.available < ledger.least[-1] - least(policy):
        every = min(every, OFTEN)
    return look.time - ledger.time >= every


def advance(
    ledger: Ledger, look: Look, candidates: Iterable[Candidate], policy: Policy, *, gpu_known: bool = True
) -> Ledger:
    """The ledger after another sample.

    Args:
        gpu_known: whether the candidates' GPU memory is that of a sample that counts. Without, the hour stands still:
            peaks stay, for a dead sampler must not cost anybody the ground on which it will find them again.
    """
    marks = ledger.marks or (Mark(look.time, look.available),) * 2
    rotate = ledger.marks is None or look.time - marks[1].time >= MARK_EVERY
    if rotate:
        marks = (marks[1], Mark(look.time, look.available))
    last = look.time if ledger.time is None else ledger.time
    # A span without a sample has no least of its own.
    low = _moved(ledger.least or (look.total,) * SPANS, last, look.time, PEAK_SPAN, look.available)
    low = (*low[:-1], min(low[-1], look.available))
    plenty = min(low) > 2 * policy.term_below
    held = _sums(ledger, candidates)
    accounts: dict[str, Account] = {}
    for key, (size, instance, age, promise) in held.items():
        before = ledger.accounts.get(key)
        if before is None or before.instance != instance:
            # When the watchdog has only just started, what has been there for a while is taken to have settled.
            own = size if ledger.time is None and age is not None and look.time - age >= SETTLED else 0
            before = _opened(instance, size, own, look)
        carried = _carried(before, size, promise, rotate, ledger, look, policy, gpu_known)
        accounts[key] = carried._replace(calm=size) if plenty else carried
    for key, account in ledger.accounts.items():
        if key not in accounts and look.time - account.seen < FORGOTTEN and len(accounts) < MOST:
            accounts[key] = account
    highs = _moved(ledger.highs or (look.available,) * SPANS, last, look.time, LOW_SPAN, look.available)
    return Ledger(
        accounts,
        look.time,
        marks,
        low,
        (*highs[:-1], max(highs[-1], look.available)),
        promises=any(promise is not None for _, _, _, promise in held.values()),
        over=any(accounts[key].over_since is not None for key in held),
    )


Sum = tuple[int, str, float | None, int | None]


def _sums(ledger: Ledger, candidates: Iterable[Candidate]) -> dict[str, Sum]:
    """By account: what is held, by which instance, since when it is there, and what it was promised."""
    found: dict[str, Sum] = {}
    shared: dict[str, Sum] = {}
    for candidate in sorted(candidates, key=attrgetter("size"), reverse=True):
        size, first = candidate.size, candidate.first
        known = size >= SMALL or candidate.key in ledger.accounts or candidate.promise is not None
        if known and len(found) < MOST:
            instance = f"{first.pid}:{first.start}" if first else ""
            found[candidate.key] = (size, instance, first.start / TICKS if first else None, candidate.promise)
        else:
            key = _small(candidate)
            key = key if key in shared or len(shared) < MOST_OWNERS else REST
            shared[key] = (shared[key][0] + size if key in shared else size, "", None, None)
    return {**found, **shared}


def _small(candidate: Candidate) -> str:
    return "small:host" if candidate.kind == "system" else f"small:{party(candidate)}"


def _opened(instance: str, size: int, own: int, look: Look) -> Account:
    # What it holds beyond its own is growth: it has not been there.
    peaks, lows = (0,) * (SPANS - 1) + (size,), (own,) * SPANS
    return Account(instance, look.time, own, own, 0, own, look.time, look.time, peaks, lows, (own, own), None)


def _carried(
    before: Account,
    size: int,
    promise: int | None,
    rotate: bool,
    ledger: Ledger,
    look: Look,
    policy: Policy,
    gpu_known: bool,
) -> Account:
    """An account after another sample."""
    now, last = look.time, look.time if ledger.time is None else ledger.time
    own, anchor, since, gained = before.own, before.anchor, before.since, before.gained
    peaks = _moved(before.peaks, last, now, PEAK_SPAN, 0) if gpu_known else before.peaks
    peaks = (*peaks[:-1], max(peaks[-1], size))
    lows = _moved(before.lows, last, now, LOW_SPAN, before.held)
    lows = (*lows[:-1], min(lows[-1], size))
    if size > anchor + little(look.total):
        anchor, since, gained = size, now, now
    elif now - since >= SETTLED:
        own = anchor = max(peaks)
        since = now
    marks = (before.marks[1], size) if rotate else before.marks
    over = promise is not None and size - promise > least(policy)
    return Account(
        before.instance,
        now,
        size,
        own,
        before.calm,
        anchor,
        since,
        gained,
        peaks,
        lows,
        marks,
        (now if before.over_since is None else before.over_since) if over else None,
    )


def _moved(spans: tuple[int, ...], last: float, now: float, length: float, fill: int) -> tuple[int, ...]:
    """The figures of spans of time with room for those that have begun since."""
    begun = int(now // length) - int(last // length)
    return (spans + (fill,) * min(begun, SPANS))[-SPANS:] if begun > 0 else spans


def account_of(accounts: Mapping[str, Account], candidate: Candidate) -> tuple[Account | None, float]:
    """The account that a candidate is part of, and its share of it."""
    account = accounts.get(candidate.key)
    if account is not None:
        return account, 1.0
    account = accounts.get(_small(candidate)) or accounts.get(REST)
    return account, candidate.size / account.held if account is not None and account.held else 0.0


def ground(account: Account) -> int:
    """What may be called its own: what it settled at, or what hurt nobody, as long as the last hour has seen it."""
    return min(max(account.own, account.calm), max(account.peaks))


def grown(account: Account) -> int:
    """What it has gained over the least of the last minute."""
    return max(0, account.held - min(account.lows))


def fallen(ledger: Ledger, look: Look) -> int:
    """By how much less is available than at the most of the last minute."""
    return max(0, max(ledger.highs, default=0) - look.available)


def leapt(account: Account) -> int:
    """What it has gained since the first mark."""
    return max(0, account.held - account.marks[0])
