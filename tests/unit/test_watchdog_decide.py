"""What holds of every decision, whatever the samples."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkhost.watchdog.decide import MOST_FUTILE, backoff, decide, interval
from sparkhost.watchdog.model import (
    GIB,
    Action,
    Candidate,
    Flight,
    Helpless,
    Kind,
    Land,
    Look,
    Member,
    Policy,
    Samples,
    Scan,
    Signal,
    Wait,
)

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
samples_ = st.builds(
    Samples,
    look=looks,
    candidates=st.one_of(st.none(), candidate_lists),
    flight=st.one_of(st.none(), flights),
    spent=st.frozensets(st.sampled_from("abcdefgh"), max_size=3),
    futile=st.integers(0, 6),
    futile_since=st.floats(900, 2000),
    dropped=st.one_of(st.none(), st.floats(900, 2000)),
)


def settle(samples: Samples, policy: Policy) -> Action:
    """Decides until it is neither about landing nor about listing."""
    action = decide(samples, policy)
    if isinstance(action, Land):
        samples = replace(samples, flight=None, futile=0 if action.helped else samples.futile)
        action = decide(samples, policy)
    if isinstance(action, Scan):
        assert samples.candidates is None
        action = decide(replace(samples, candidates=()), policy)
    assert not isinstance(action, Land | Scan)
    return action


@relaxed
@given(samples_, policies)
def test_a_protected_candidate_is_never_the_victim(samples: Samples, policy: Policy) -> None:
    action = decide(replace(samples, flight=None), policy)
    if isinstance(action, Signal):
        protected = [root for c in samples.candidates or () if c.protected for root in c.roots]
        assert not set(action.victim.roots) & set(protected)


@relaxed
@given(samples_, policies)
def test_nothing_is_killed_at_or_above_term_below(samples: Samples, policy: Policy) -> None:
    action = decide(samples, policy)
    if isinstance(action, Signal) and action.stage == "KILL":
        assert samples.look.available < policy.term_below


def may_die(candidate: Candidate, policy: Policy) -> bool:
    """Said anew, in the words of docs/watchdog.md."""
    if candidate.protected or candidate.size == 0:
        return False
    if candidate.kind == "system" and not candidate.preferred:
        return candidate.gpu > 0 or candidate.size > policy.system_unit_above
    return True


@relaxed
@given(samples_, policies)
def test_below_kill_below_something_is_always_done(samples: Samples, policy: Policy) -> None:
    samples = replace(samples, candidates=samples.candidates or ())
    flight, now = samples.flight, samples.look.time
    if samples.look.available >= policy.kill_below:
        return
    if flight is not None and now - max(flight.sent, flight.gone or 0.0) < policy.recovery_wait:
        return
    action = settle(samples, policy)
    if any(may_die(c, policy) and c.key not in samples.spent for c in samples.candidates or ()):
        assert isinstance(action, Signal | Helpless)
        if isinstance(action, Signal):
            assert action.stage == "KILL"
        else:  # only where killing has been shown not to help, and not for long
            assert samples.futile >= MOST_FUTILE
            assert now - samples.futile_since < backoff(samples.futile, policy) <= 60
    else:
        assert isinstance(action, Helpless | Signal)


@relaxed
@given(samples_, policies)
def test_the_first_signal_is_term_unless_below_kill_below(samples: Samples, policy: Policy) -> None:
    action = decide(replace(samples, flight=None), policy)
    if isinstance(action, Signal):
        assert (action.stage == "KILL") == (samples.look.available < policy.kill_below)


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
        assert isinstance(action, Wait)


@relaxed
@given(looks, policies)
def test_the_fastest_fill_cannot_pass_the_threshold_unseen(look: Look, policy: Policy) -> None:
    pause = interval(look, policy)
    assert policy.near <= pause <= policy.far
    if pause > policy.near:
        assert look.available - pause * policy.fastest_fill >= policy.term_below
        assert look.available + pause * min(look.slope, 0) >= policy.term_below
