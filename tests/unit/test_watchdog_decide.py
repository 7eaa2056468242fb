"""What holds of every decision, whatever the samples."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given

from sparkhost.watchdog.decide import backoff, decide, interval
from sparkhost.watchdog.model import Candidate, Freeze, Helpless, Look, Policy, Samples, Scan, Signal, Thaw, Wait
from tests.unit.watchdog_situations import (
    TOTAL,
    candidate_lists,
    looks,
    one_look,
    policies,
    relaxed,
    samples_,
    situations,
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
