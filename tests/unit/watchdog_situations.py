"""Samples by lot, for what holds of every decision; and a look as the loop takes it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.ledger import SPANS
from sparkhost.watchdog.loop import MOST_STEPS
from sparkhost.watchdog.model import (
    GIB,
    Account,
    Action,
    Candidate,
    Flight,
    Freeze,
    Frozen,
    Helpless,
    Kind,
    Land,
    Ledger,
    Look,
    Mark,
    Member,
    Policy,
    Samples,
    Scan,
    Signal,
    Thaw,
    Wait,
)
from sparkhost.watchdog.state import after_freeze, after_land, after_scan, after_signal, after_thaw

TOTAL = 120 * GIB
# Emulated hosts may be using the same processors: how long a draw takes says nothing.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
KINDS: tuple[Kind, ...] = ("job", "container", "session", "process", "system")

sizes = st.integers(0, TOTAL)
policies = st.builds(
    lambda kill, gap, **rest: Policy(term_below=kill + gap, kill_below=kill, **rest),
    kill=st.integers(1, 20 * GIB),
    gap=st.integers(1, 20 * GIB),
    near=st.floats(0.01, 0.05),
    far=st.floats(0.5, 5),
    grace=st.floats(0, 60),
    recovery_wait=st.floats(0.5, 30),
    smallest_victim=st.integers(0, 2 * GIB),
    system_unit_above=st.integers(0, 4 * GIB),
    drop_page_cache=st.booleans(),
    brake=st.sampled_from(["all", "jobs", "off"]),
    brake_at_most=st.floats(1, 30),
    over_promise=st.sampled_from(["first", "end", "tell"]),
)
looks = st.builds(
    Look,
    time=st.floats(1000, 2000),
    total=st.just(TOTAL),
    available=st.one_of(sizes, st.integers(0, 40 * GIB)),
    free=sizes,
    slope=st.floats(-20 * GIB, 20 * GIB),
    stall=st.floats(0, 1),
)
made = st.builds(
    Candidate,
    key=st.sampled_from("abcdefgh"),
    name=st.text(max_size=5),
    kind=st.sampled_from(KINDS),
    cgroup=st.sampled_from(["/s1", "/s2"]),
    alone=st.booleans(),
    owner=st.integers(1000, 1001),
    gpu=st.one_of(st.just(0), sizes),
    anonymous=sizes,
    shared=st.one_of(st.just(0), sizes),
    protected=st.booleans(),
    preferred=st.booleans(),
    avoided=st.booleans(),
    promise=st.one_of(st.none(), sizes),
    freezer=st.sampled_from(["", "/f1", "/f2", "/f2/inner"]),
).map(lambda c: replace(c, roots=(Member(ord(c.key), 1),)))
candidate_lists = st.lists(made, max_size=6, unique_by=lambda c: c.key).map(tuple)
flights = st.builds(
    lambda sent, after, **rest: Flight(sent=sent, gone=None if after is None else sent + after, **rest),
    victim=made,
    stage=st.sampled_from(["TERM", "KILL"]),
    sent=st.floats(900, 2000),
    available=sizes,
    after=st.one_of(st.none(), st.floats(0, 1000)),
)
moments = st.floats(900, 2000)
accounts = st.builds(
    Account,
    instance=st.just(""),
    seen=moments,
    held=sizes,
    own=sizes,
    calm=st.one_of(st.just(0), sizes),
    anchor=sizes,
    since=moments,
    gained=moments,
    peaks=sizes.map(lambda size: (size,) * SPANS),
    lows=sizes.map(lambda size: (size,) * SPANS),
    marks=st.tuples(sizes, sizes),
    over_since=st.one_of(st.none(), moments),
)
ledgers = st.builds(
    Ledger,
    accounts=st.dictionaries(st.sampled_from("abcdefgh"), accounts, max_size=6),
    time=st.one_of(st.none(), moments),
    marks=st.one_of(st.none(), st.tuples(*[st.builds(Mark, time=moments, available=sizes)] * 2)),
    promises=st.booleans(),
    over=st.booleans(),
)
samples_ = st.builds(
    Samples,
    look=looks,
    candidates=st.one_of(st.none(), candidate_lists),
    flight=st.one_of(st.none(), flights),
    spent=st.frozensets(st.sampled_from("abcdefgh"), max_size=3),
    futile=st.integers(0, 6),
    futile_since=moments,
    dropped=st.one_of(st.none(), moments),
    ledger=ledgers,
    frozen=st.lists(
        st.builds(Frozen, cgroup=st.sampled_from(["/f1", "/f2", "/f2/inner"]), since=moments),
        max_size=3,
        unique_by=lambda frozen: frozen.cgroup,
    ).map(tuple),
    released=st.frozensets(st.sampled_from(["/f1", "/f2"])),
    braked=st.one_of(st.none(), sizes),
    thawed=st.one_of(st.just(0.0), moments),
    doubted=st.frozensets(st.sampled_from(["user 1000", "a"])),
    gpu_age=st.one_of(st.none(), st.floats(0, 60)),
)


def one_look(samples: Samples, policy: Policy, listed: tuple[Candidate, ...] = ()) -> list[tuple[Samples, Action]]:
    """All that is decided at one look, each with its samples, as the loop goes on; `listed` where it asks for them."""
    found: list[tuple[Samples, Action]] = []
    while len(found) < MOST_STEPS:
        action, now = decide(samples, policy), samples.look.time
        found.append((samples, action))
        match action:
            case Wait() | Helpless():
                return found
            case Scan():
                assert samples.candidates is None, "they were listed at this look"
                samples = after_scan(samples, listed, policy)
            case Signal():
                samples = after_signal(samples, action, now)
            case Land():
                samples = after_land(samples, action)
            case Freeze():
                samples = after_freeze(samples, action, now)
            case Thaw():
                samples = after_thaw(samples, action, now)
            case _:
                samples = replace(samples, dropped=now)
    raise AssertionError(f"a look that does not end: {[action for _, action in found]}")


@st.composite
def situations(draw: st.DrawFn, bands: tuple[str, ...] = ("low", "firm", "soft")) -> tuple[Samples, Policy]:
    """Samples in which something is to be decided: memory is short, units have settled or not, some are frozen."""
    policy, samples = draw(policies), draw(samples_)
    low, high = {
        "low": (0, policy.kill_below - 1),
        "firm": (policy.kill_below, max(policy.kill_below, int(policy.term_below * 0.87))),
        "soft": (max(policy.kill_below, int(policy.term_below * 0.88)), policy.term_below - 1),
        "plenty": (policy.term_below, TOTAL),
    }[draw(st.sampled_from(bands))]
    available = draw(st.integers(low, max(low, high)))
    listed = draw(st.lists(made, min_size=2, max_size=5, unique_by=lambda c: c.key))
    ages = st.floats(0, 1.2 * policy.brake_at_most)
    known = dict(samples.ledger.accounts)
    for candidate in listed:
        if draw(st.booleans()):
            size = candidate.size
            known[candidate.key] = draw(accounts)._replace(
                held=size, own=size, peaks=(size,) * SPANS, lows=(size,) * SPANS, marks=(size, size)
            )
    now = samples.look.time
    frozen = tuple(replace(one, since=now - draw(ages)) for one in samples.frozen if draw(st.booleans()))
    flight = samples.flight and replace(samples.flight, sent=now - draw(st.floats(0, 9)), gone=None)
    if flight is not None and draw(st.booleans()):
        flight = replace(flight, victim=draw(st.sampled_from(listed)))
    return (
        replace(
            samples,
            look=replace(samples.look, available=available),
            candidates=tuple(listed),
            ledger=replace(samples.ledger, accounts=known),
            frozen=frozen,
            flight=flight,
            thawed=0.0,
            braked=draw(st.one_of(st.none(), st.just(samples.braked))),
        ),
        policy,
    )
