"""Who owns what: the ledger by example, bounded, and recordable."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkhost.watchdog import state
from sparkhost.watchdog.choice import Level, choose
from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.ledger import MOST, MOST_OWNERS, advance, ground, is_due
from sparkhost.watchdog.model import (
    GIB,
    MIB,
    Candidate,
    Flight,
    Frozen,
    Ground,
    Land,
    Ledger,
    Look,
    Member,
    Policy,
    Samples,
    Signal,
)
from sparkhost.watchdog.trace import encode, samples_of

TOTAL = 120 * GIB
POLICY = Policy()


def unit(key: str, size: int, **more: object) -> Candidate:
    made = Candidate(key, key, "job", f"/{key}", owner=1000, anonymous=size, first=Member(1, 100_000))
    return replace(made, **more)  # type: ignore[arg-type]


def kept(points: list[tuple[float, int]], available: int = 20 * GIB, **more: object) -> Ledger:
    """The ledger after these samples of one unit: second, GiB."""
    ledger = Ledger()
    for time, size in points:
        look = Look(time, TOTAL, available, available)
        ledger = advance(ledger, look, [unit("a", size * GIB, **more)], POLICY)
    return ledger


def owned(ledger: Ledger) -> float:
    return ground(ledger.accounts["a"]) / GIB


def test_what_is_held_for_two_minutes_without_gaining_is_ones_own() -> None:
    assert owned(kept([(1000, 10), (1060, 20), (1119, 20)])) == 0
    assert owned(kept([(1000, 10), (1060, 20), (1119, 20), (1181, 20)])) == 20


def test_peaks_of_the_last_hour_stay_ones_own_and_older_ones_do_not() -> None:
    swing = [(1000.0 + 60 * minute, 60 if minute % 10 == 0 else 20) for minute in range(30)]
    assert owned(kept(swing)) == 60
    idle = [(2800.0 + 60 * minute, 20) for minute in range(90)]
    assert owned(kept(swing + idle[:40])) == 60
    assert owned(kept(swing + idle)) == 20


def test_a_restart_owns_nothing_and_growth_in_times_of_plenty_hurts_nobody() -> None:
    settled = kept([(1000, 30), (1130, 30)])
    assert owned(settled) == 30
    again = unit("a", 30 * GIB, first=Member(2, 113_500))
    look = Look(1135, TOTAL, 20 * GIB, 0)
    assert owned(advance(settled, look, [again], POLICY)) == 0
    plenty = replace(look, time=1500.0, available=90 * GIB)
    assert owned(advance(settled, plenty, [again], POLICY)) == 0, "an hour with a trough is no hour of plenty"
    assert owned(advance(kept([(1000, 30)], available=90 * GIB), plenty, [again], POLICY)) == 30


def test_who_was_there_long_before_the_watchdog_has_settled() -> None:
    assert owned(kept([(2000, 30)])) == 30
    assert owned(kept([(1100, 30)])) == 0
    assert owned(kept([(2000, 30)], first=None)) == 0


def test_a_dead_sampler_costs_nobody_the_ground_on_which_it_finds_them_again() -> None:
    gpu = {"anonymous": GIB, "gpu": 40 * GIB}
    ledger = kept([(1000, 1), (1130, 1)], **gpu)
    assert owned(ledger) == 41
    for minute in range(200):
        look = Look(1200.0 + 60 * minute, TOTAL, 20 * GIB, 0)
        ledger = advance(ledger, look, [unit("a", GIB)], POLICY, gpu_known=False)
    assert owned(ledger) == 41


def test_a_sample_is_due_seldom_often_and_when_less_is_left_than_before() -> None:
    ledger = kept([(1200, 10)], available=80 * GIB)
    assert not is_due(ledger, Look(1214, TOTAL, 80 * GIB, 0), POLICY)
    assert is_due(ledger, Look(1246, TOTAL, 80 * GIB, 0), POLICY)
    assert is_due(ledger, Look(1201.5, TOTAL, 70 * GIB, 0), POLICY)
    assert is_due(ledger, Look(1201.5, TOTAL, 20 * GIB, 0), POLICY)
    assert not is_due(ledger, Look(1200.5, TOTAL, 20 * GIB, 0), POLICY)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1500), st.integers(0, 300), st.integers(1, 3))
def test_the_ledger_is_bounded_and_loses_nobodys_memory(units: int, owners: int, samples: int) -> None:
    listed = [
        *(unit(f"large{number}", (number % 7 + 1) * GIB, owner=number) for number in range(units)),
        *(unit(f"small{number}", MIB, owner=number) for number in range(owners)),
    ]
    ledger = Ledger()
    for sample in range(samples):
        ledger = advance(ledger, Look(1000.0 + sample, TOTAL, 20 * GIB, 0), listed, POLICY)
    assert len(ledger.accounts) <= MOST + MOST_OWNERS + 1
    assert sum(account.held for account in ledger.accounts.values()) == sum(candidate.size for candidate in listed)


def broken(time: float, over_promise: str) -> object:
    """What is decided of a job of 12 GiB that was promised 10, so long after 1000 s, with plenty of memory."""
    policy = Policy(over_promise=over_promise)  # type: ignore[arg-type]
    samples = Samples(Look(999.0, TOTAL, 90 * GIB, 0))
    for now in (1000.0, time):
        samples = state.with_look(samples, Look(now, TOTAL, 90 * GIB, 0), policy)
        samples = state.after_scan(samples, [unit("a", 12 * GIB, promise=10 * GIB), unit("b", 60 * GIB)], policy)
    return decide(samples, policy)


def test_over_promise_end_ends_who_is_beyond_its_promise_for_three_seconds() -> None:
    assert not isinstance(broken(1002.9, "end"), Signal)
    assert not isinstance(broken(1100, "first"), Signal)
    action = broken(1003.1, "end")
    assert isinstance(action, Signal)
    assert (action.victim.key, action.stage, action.always) == ("a", "TERM", True)
    flying = Samples(
        Look(1004.0, TOTAL, 90 * GIB, 0), flight=Flight(action.victim, "TERM", 1003.1, 90 * GIB, always=True)
    )
    assert not isinstance(decide(flying, Policy()), Signal)
    late = decide(replace(flying, look=replace(flying.look, time=1004.2)), Policy())
    assert isinstance(late, Signal)
    assert late.stage == "KILL"


@pytest.mark.parametrize(("over_promise", "victim"), [("first", "a"), ("end", "a"), ("tell", "b")])
def test_who_is_beyond_its_promise_is_first_unless_it_is_only_told(over_promise: str, victim: str) -> None:
    samples = Samples(Look(1000.0, TOTAL, 12 * GIB, 0), (unit("a", 12 * GIB, promise=10 * GIB), unit("b", 60 * GIB)))
    choice = choose(samples, Policy(over_promise=over_promise), Level.SOFT)  # type: ignore[arg-type]
    assert choice is not None
    assert choice.victim.key == victim


def test_shared_memory_of_whom_nothing_came_back_from_counts_no_more() -> None:
    """Four map one file of 38 GiB, and a hog of another user's takes the memory."""
    sharers = [unit(f"s{number}", GIB, shared=38 * GIB) for number in range(4)]
    listed = (*sharers, unit("hog", 30 * GIB, owner=1001))
    samples = Samples(Look(1000.0, TOTAL, 7 * GIB, 0), listed)
    first = decide(samples, POLICY)
    assert isinstance(first, Signal)
    assert first.victim.key.startswith("s")
    samples = state.after_land(state.after_signal(samples, first, 1000.0), Land(False))
    second = decide(samples, POLICY)
    assert isinstance(second, Signal)
    assert second.victim.key == "hog"


def test_samples_are_what_they_were_after_they_were_recorded() -> None:
    part = unit("a", 5 * GIB, promise=GIB, freezer="/a")
    victim = Candidate("both", "both", "job", "", owner=1000, anonymous=10 * GIB, parts=(part, unit("b", 5 * GIB)))
    samples = Samples(
        Look(1000.0, TOTAL, 12 * GIB, 0),
        (part, unit("c", GIB, first=None, roots=(Member(7, 8),))),
        Flight(victim, "TERM", 999.0, 15 * GIB, grounds=(Ground("a", "a", 5, 1, 4, 2, 3),)),
        spent=frozenset({"x"}),
        ledger=kept([(1000, 10), (1060, 20)]),
        frozen=(Frozen("/c", 998.0, "it grows"),),
        released=frozenset({"/d"}),
        braked=13 * GIB,
        doubted=frozenset({"user 1000"}),
        gpu_age=0.5,
    )
    assert samples_of(json.loads(json.dumps(samples, default=encode))) == samples
