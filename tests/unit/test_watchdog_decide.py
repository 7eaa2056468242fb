"""What holds of every decision, whatever the samples."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkhost.watchdog.decide import backoff, decide, interval
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


@relaxed
@given(samples_, policies, candidate_lists, situations())
def test_every_look_ends(
    samples: Samples, policy: Policy, listed: tuple[Candidate, ...], situation: tuple[Samples, Policy]
) -> None:
    assert isinstance(one_look(samples, policy, listed)[-1][1], Wait | Helpless)
    assert isinstance(one_look(*situation)[-1][1], Wait | Helpless)


@relaxed
@given(samples_, policies)
def test_a_protected_candidate_is_never_the_victim(samples: Samples, policy: Policy) -> None:
    action = decide(replace(samples, flight=None), policy)
    if isinstance(action, Signal):
        protected = {root for c in samples.candidates or () if c.protected for root in c.roots}
        assert not {root for unit in action.victim.units for root in unit.roots} & protected


@relaxed
@given(situations())
def test_what_is_protected_or_nobody_elses_is_never_frozen(situation: tuple[Samples, Policy]) -> None:
    samples, policy = situation
    for before, action in one_look(samples, policy):
        if isinstance(action, Freeze):
            jobs = [c for c in before.candidates or () if policy.brake == "all" or c.kind in ("job", "container")]
            assert set(action.units) <= {c.freezer for c in jobs if not c.protected} - {""}
            assert not set(action.units) & before.released
            assert policy.brake != "off"


@relaxed
@given(situations())
def test_a_victim_is_not_frozen_when_the_look_is_over(situation: tuple[Samples, Policy]) -> None:
    samples, policy = situation
    last, _ = one_look(samples, policy)[-1]
    if last.flight is not None:
        theirs = {unit.freezer for unit in last.flight.victim.units} - {""}
        assert not theirs & {frozen.cgroup for frozen in last.frozen}


@relaxed
@given(situations())
def test_nothing_stays_frozen_for_longer_than_it_may(situation: tuple[Samples, Policy]) -> None:
    samples, policy = situation
    last, _ = one_look(samples, policy)[-1]
    assert all(0 <= last.look.time - frozen.since < policy.brake_at_most for frozen in last.frozen)
    assert not last.frozen or policy.brake != "off"


@relaxed
@given(samples_, policies)
def test_nothing_is_killed_at_or_above_term_below(samples: Samples, policy: Policy) -> None:
    action = decide(samples, policy)
    if isinstance(action, Signal) and action.stage == "KILL" and not action.always:
        assert samples.look.available < policy.term_below


@relaxed
@given(situations(("plenty",)))
def test_only_a_broken_promise_ends_who_leaves_memory_for_all(situation: tuple[Samples, Policy]) -> None:
    samples, policy = situation
    samples = replace(samples, look=replace(samples.look, available=TOTAL, slope=0.0), flight=None, frozen=())
    action = decide(samples, policy)
    if isinstance(action, Signal):
        assert policy.over_promise == "end"
        assert action.stage == "TERM"
        account = samples.ledger.accounts[action.victim.key]
        assert account.over_since is not None
        assert samples.look.time - account.over_since >= 3


def may_die(candidate: Candidate, policy: Policy) -> bool:
    """Said anew, in the words of docs/watchdog.md."""
    if candidate.protected or candidate.size == 0:
        return False
    if candidate.kind == "system" and not candidate.preferred:
        return candidate.gpu > 0 or candidate.size > policy.system_unit_above
    return True


@relaxed
@given(samples_, policies)
def test_below_kill_below_whoever_was_not_tried_is_killed(samples: Samples, policy: Policy) -> None:
    samples = replace(samples, candidates=samples.candidates or ())
    flight, now = samples.flight, samples.look.time
    if samples.look.available >= policy.kill_below:
        return
    if flight is not None and now - max(flight.sent, flight.gone or 0.0) < policy.recovery_wait:
        return
    actions = one_look(samples, policy)
    last, answer = actions[-1]
    killed = [action for _, action in actions if isinstance(action, Signal) and action.stage == "KILL"]
    # Whom landing has shown to be tried in vain is among those of the last samples.
    tried = last.spent | ({unit.key for unit in flight.victim.units} if flight else set())
    if any(may_die(c, policy) and c.key not in tried for c in samples.candidates or ()):
        assert killed, "neither waiting nor a complaint is something"
    elif not killed and isinstance(answer, Helpless):
        everybody = [c for c in samples.candidates or () if may_die(c, policy)]
        assert not everybody or now < last.futile_since + backoff(last.futile, policy) <= last.futile_since + 60


@relaxed
@given(situations(("firm", "soft", "plenty")))
def test_above_kill_below_nobody_is_ended_who_has_taken_nothing(situation: tuple[Samples, Policy]) -> None:
    """Settled, not grown within the last minute, and no promise of anybody's that they could be in the way of."""
    samples, policy = situation
    listed = tuple(replace(c, promise=None, preferred=False) for c in samples.candidates or ())
    samples = replace(samples, candidates=listed, flight=None)
    if samples.look.available < policy.kill_below:
        return
    for _, action in one_look(samples, policy):
        if not isinstance(action, Signal) or action.stage == "KILL" or action.always:
            continue
        for unit in action.victim.units:
            account = samples.ledger.accounts.get(unit.key)
            if account is not None:
                owns = min(max(account.own, account.calm), max(account.peaks))
                assert unit.size > owns or account.held > min(account.lows)


@relaxed
@given(samples_, policies)
def test_the_first_signal_is_term_unless_below_kill_below(samples: Samples, policy: Policy) -> None:
    action = decide(replace(samples, flight=None), policy)
    if isinstance(action, Signal):
        assert (action.stage == "KILL") == (samples.look.available < policy.kill_below)
        assert any(ground.key == action.victim.units[0].key for ground in action.grounds)
        assert len(action.grounds) <= 10


@relaxed
@given(samples_, policies)
def test_there_is_no_second_victim_while_the_first_is_in_flight(samples: Samples, policy: Policy) -> None:
    action = decide(samples, policy)
    if samples.flight is None:
        return
    if isinstance(action, Signal):
        assert action.victim == samples.flight.victim
        assert (samples.flight.stage, action.stage) == ("TERM", "KILL")
    since = samples.look.time - max(samples.flight.sent, samples.flight.gone or 0.0)
    releasing = samples.look.slope > 0 and samples.look.available < policy.term_below and since < policy.recovery_wait
    if releasing and samples.flight.stage == "KILL":
        assert isinstance(action, Wait | Scan | Freeze | Thaw)


@relaxed
@given(looks, policies)
def test_the_fastest_fill_cannot_pass_the_threshold_unseen(look: Look, policy: Policy) -> None:
    pause = interval(look, policy)
    assert policy.near <= pause <= policy.far
    if pause > policy.near:
        assert look.available - pause * policy.fastest_fill >= policy.term_below
        assert look.available + pause * min(look.slope, 0) >= policy.term_below
