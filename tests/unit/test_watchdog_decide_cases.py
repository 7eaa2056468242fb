"""Decisions by example: whose turn it is, what becomes of who was signalled, how often it looks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparkhost.watchdog.decide import MOST_FUTILE, decide, interval
from sparkhost.watchdog.model import (
    GIB,
    MIB,
    Candidate,
    DropCache,
    Flight,
    Helpless,
    Kind,
    Land,
    Ledger,
    Look,
    Member,
    Policy,
    Samples,
    Signal,
    Wait,
)

TOTAL = 120 * GIB


def test_near_is_often_and_far_is_seldom() -> None:
    policy = Policy()
    assert interval(Look(0, TOTAL, 100 * GIB, 0), policy) == policy.far
    assert interval(Look(0, TOTAL, 17 * GIB, 0), policy) < 0.1
    assert interval(Look(0, TOTAL, 100 * GIB, 0, stall=0.5), policy) <= 5 * policy.near


def work(key: str, size: int, kind: Kind = "job", **rest: object) -> Candidate:
    return replace(Candidate(key=key, name=key, kind=kind, cgroup=f"/{key}", anonymous=size), **rest)  # type: ignore[arg-type]


def low(*candidates: Candidate, available: int = 12 * GIB) -> Samples:
    return Samples(Look(1000, TOTAL, available, available), candidates)


@pytest.mark.parametrize(
    ("candidates", "victim"),
    [
        ([work("small", 2 * GIB), work("large", 50 * GIB)], "large"),
        ([work("rss", 20 * GIB), work("cuda", GIB, gpu=60 * GIB)], "cuda"),
        ([work("server", 3 * GIB, "system"), work("job", GIB)], "job"),
        # A service that holds far more than all work is no better than work: the innocent would go first, in vain.
        ([work("cron", 95 * GIB, "system"), work("job", GIB), work("other", GIB // 2)], "cron"),
        ([work("server", 90 * GIB, "system"), work("tiny", MIB)], "server"),
        ([work("cron", GIB // 2, "system"), work("ollama", 2 * MIB, "system", gpu=GIB)], "ollama"),
        ([work("large", 50 * GIB), work("batch", GIB, preferred=True)], "batch"),
        ([work("large", 50 * GIB, avoided=True), work("other", GIB)], "other"),
        ([work("large", 50 * GIB, avoided=True), work("tiny", MIB)], "large"),
        ([work("large", 50 * GIB, protected=True), work("other", GIB)], "other"),
    ],
)
def test_whose_turn_it_is(candidates: list[Candidate], victim: str) -> None:
    action = decide(low(*candidates), Policy())
    assert isinstance(action, Signal)
    assert (action.victim.key, action.stage) == (victim, "TERM")


def test_a_small_one_is_ended_only_below_kill_below() -> None:
    assert isinstance(decide(low(work("tiny", MIB)), Policy()), Helpless)
    assert isinstance(decide(low(work("tiny", MIB), available=GIB), Policy()), Signal)


def test_a_system_unit_without_gpu_memory_and_below_the_limit_is_left_alone_to_the_end() -> None:
    assert isinstance(decide(low(work("cron", GIB // 2, "system"), available=MIB), Policy()), Helpless)


def hog(number: int, size: int, cgroup: str = "/s1", owner: int = 1000) -> Candidate:
    return Candidate(str(number), "hog", "session", cgroup, (Member(number, 1),), owner=owner, anonymous=size)


def test_many_hogs_of_one_owner_go_together_and_no_more_than_half_of_them() -> None:
    swarm = [hog(number, GIB) for number in range(1, 21)]
    others = [hog(30, GIB // 2, "/s2", owner=1002), hog(31, 2 * GIB, "/s1", owner=1001)]
    for available, stage in ((4 * GIB, "KILL"), (12 * GIB, "TERM")):
        action = decide(low(*swarm, *others, available=available), Policy())
        assert isinstance(action, Signal)
        assert action.stage == stage
        assert len(action.victim.parts) == 10
        assert {part.owner for part in action.victim.parts} == {1000}
        assert action.victim.cgroup == "", "it is no cgroup, and nobody may take it for one"
        assert {ground.key for ground in action.grounds} == {part.key for part in action.victim.parts}
    action = decide(low(hog(1, 14 * GIB), hog(2, 14 * GIB), available=4 * GIB), Policy())
    assert isinstance(action, Signal)
    assert not action.victim.parts, "one is enough"


def test_many_that_are_small_are_one_that_is_not() -> None:
    swarm = [hog(number, 200 * MIB) for number in range(1, 101)]
    action = decide(low(*swarm, hog(200, GIB, owner=1001)), Policy())
    assert isinstance(action, Signal)
    assert len(action.victim.parts) == 50


def test_a_fast_fall_is_answered_before_the_threshold_where_no_brake_can() -> None:
    falling = Look(1000, TOTAL, 16 * GIB + GIB // 4, GIB, slope=-8.0 * GIB)
    sampled = Ledger(time=1000.0)
    action = decide(Samples(falling, (work("job", 50 * GIB),)), Policy())
    assert isinstance(action, Signal)
    assert action.stage == "TERM"
    stoppable = Samples(falling, (work("job", 50 * GIB, freezer="/job"),))
    assert isinstance(decide(stoppable, Policy()), Wait), "a freeze needs no lead"
    assert isinstance(decide(stoppable, Policy(brake="off")), Signal)
    slow = Samples(replace(falling, slope=-1.0 * GIB), ledger=sampled)
    assert isinstance(decide(slow, Policy()), Wait)
    # One large allocation that fitted is no rate: nobody is ended for it.
    jump = Samples(replace(falling, available=17 * GIB, slope=-100.0 * GIB), ledger=sampled)
    assert isinstance(decide(jump, Policy()), Wait)


def flying(stage: str, age: float, available: int, gone: float | None = None, slope: float = 0.0) -> Samples:
    look = Look(1000, TOTAL, available, available, slope)
    when = None if gone is None else 1000 - gone
    victim = work("job", 50 * GIB)
    return Samples(look, (work("next", GIB),), Flight(victim, stage, 1000 - age, 12 * GIB, when))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("samples", "wanted"),
    [
        # It obeys, or has time to.
        (flying("TERM", 1, 12 * GIB), Wait),
        (flying("TERM", 1, 20 * GIB), Wait),
        (flying("TERM", 1, 20 * GIB, gone=0), Land),
        # It does not obey, and memory is short; or no longer.
        (flying("TERM", 9, 12 * GIB), Signal),
        (flying("TERM", 9, 20 * GIB), Land),
        (flying("TERM", 1, 7 * GIB), Signal),
        # Killed: it takes its time, and gets it as long as it gives something back.
        (flying("KILL", 1, GIB), Wait),
        (flying("KILL", 4, 12 * GIB, slope=1.0), Wait),
        (flying("KILL", 4, 12 * GIB, slope=-1.0), Land),
        (flying("KILL", 4, GIB, slope=1.0), Land),
        # Gone: the driver may hold on to memory.
        (flying("KILL", 1, GIB, gone=0.1), Wait),
        (flying("KILL", 1, GIB, gone=0.3, slope=1.0), Wait),
        (flying("KILL", 1, GIB, gone=0.3, slope=-1.0), Land),
    ],
)
def test_a_flight(samples: Samples, wanted: type) -> None:
    assert isinstance(decide(samples, Policy()), wanted)


def test_what_landed_helped_only_if_it_gave_memory_back() -> None:
    assert decide(flying("KILL", 9, 13 * GIB, gone=5), Policy()) == Land(False)
    assert decide(flying("KILL", 9, 15 * GIB, gone=5), replace(Policy(), term_below=80 * GIB)) == Land(False)
    assert decide(flying("KILL", 9, 30 * GIB, gone=5), replace(Policy(), term_below=80 * GIB)) == Land(True)


def test_killing_in_vain_stops_when_everybody_was_tried_and_is_tried_again_later() -> None:
    hogs = low(work("next", 9 * GIB), work("other", 8 * GIB), available=GIB)
    samples = replace(hogs, futile=MOST_FUTILE, futile_since=999.0, spent=frozenset({"next"}))
    action = decide(samples, Policy())
    assert isinstance(action, Signal)
    assert action.victim.key == "other", "it was never tried: there is no time to wait"
    samples = replace(samples, spent=frozenset({"next", "other"}))
    assert isinstance(decide(samples, Policy()), Helpless)
    later = replace(samples, look=replace(samples.look, time=999 + Policy().recovery_wait))
    action = decide(later, Policy())
    assert isinstance(action, Signal)
    assert action.victim.key == "next"


def test_page_cache_is_dropped_only_where_asked_for_and_not_often() -> None:
    fine = Samples(Look(1000, TOTAL, 60 * GIB, GIB), ledger=Ledger(time=1000.0))
    policy = Policy(drop_page_cache=True)
    assert isinstance(decide(fine, Policy()), Wait)
    assert isinstance(decide(fine, policy), DropCache)
    assert isinstance(decide(replace(fine, dropped=990.0), policy), Wait)
    assert isinstance(decide(replace(fine, dropped=900.0), policy), DropCache)
    assert isinstance(decide(replace(fine, look=replace(fine.look, free=30 * GIB)), policy), Wait)
