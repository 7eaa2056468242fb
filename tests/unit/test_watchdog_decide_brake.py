"""Every freeze has its thaw: on every path that a watchdog can take."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sparkhost.watchdog import state
from sparkhost.watchdog.brake import to_freeze
from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.loop import MOST_STEPS
from sparkhost.watchdog.model import (
    GIB,
    Candidate,
    DropCache,
    Flight,
    Freeze,
    Frozen,
    Helpless,
    Land,
    Look,
    Member,
    Policy,
    Samples,
    Scan,
    Signal,
    Thaw,
    Wait,
)

TOTAL = 120 * GIB
# Seconds from a look to what is done about it.
TAKES = 0.004
UNITS: dict[str, tuple[str, bool]] = {
    # key: freezer, protected
    "job-a": ("/training.slice/a", False),
    "job-b": ("/training.slice/b", False),
    "login-1": ("/user.slice/user-1.slice", False),
    "login-2": ("/user.slice/user-1.slice", False),
    "box": ("/user.slice/user-1.slice/box", False),
    "root": ("", False),
    "sshd": ("/system.slice/ssh.service", True),
}


class Paths(RuleBasedStateMachine):
    """A host of a few units whose memory does as it likes, and what is frozen on it."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy()
        self.samples = Samples(Look(1000.0, TOTAL, 60 * GIB, 0))
        self.now = 1000.0
        self.held = dict.fromkeys(UNITS, 2 * GIB)
        self.alive = set(UNITS)
        self.frozen: dict[str, float] = {}
        """What really is frozen, and since when: by what was done, not by what is remembered."""
        self.victim: str | None = None
        self.rested: set[str] = set()
        """What was frozen for as long as may be, since memory was last back."""

    def listed(self) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(
                key,
                key,
                "session" if key.startswith("login") else "job",
                f"/{key}",
                (Member(1, 1),),
                owner=1000 + index,
                anonymous=self.held[key],
                protected=UNITS[key][1],
                first=Member(1, 1),
                freezer=UNITS[key][0],
            )
            for index, key in enumerate(UNITS)
            if key in self.alive
        )

    def look(self, available: int, slope: float, pause: float) -> None:
        """One look as the loop takes it."""
        self.now += pause
        gone = self.samples.flight is not None and self.victim not in self.alive
        look = Look(self.now, TOTAL, available, 0, slope)
        self.samples = state.with_look(self.samples, look, self.policy, gone=gone)
        if available >= self.policy.term_below and self.samples.flight is None and not self.frozen:
            self.rested.clear()
        for _ in range(MOST_STEPS):
            if self._is_done(decide(self.samples, self.policy)):
                return
        raise AssertionError("a look that does not end")

    def _is_done(self, action: object) -> bool:
        match action:
            case Wait() | Helpless():
                return True
            case Scan():
                self.samples = state.after_scan(self.samples, self.listed(), self.policy)
            case Signal():
                flight = self.samples.flight
                assert flight is None or flight.victim == action.victim, "two victims at a time"
                self.victim = action.victim.key
                assert not {unit.key for unit in action.victim.units} & {"sshd"}
                self.samples = state.after_signal(self.samples, action, self.now + TAKES)
            case Freeze():
                self._freeze(action)
            case Thaw():
                assert set(action.units) <= set(self.frozen), "what it has not frozen is somebody else's"
                for cgroup in action.units:
                    since = self.frozen.pop(cgroup)
                    assert not action.late or self.now - since >= self.policy.brake_at_most - TAKES, "not yet late"
                self.rested |= set(action.units) if action.late else set()
                self.samples = state.after_thaw(self.samples, action, self.now + TAKES)
            case Land():
                self.samples = state.after_land(self.samples, action)
            case DropCache():
                raise AssertionError("nobody asked for it")
        return False

    def _freeze(self, action: Freeze) -> None:
        assert action.units
        for cgroup in action.units:
            assert cgroup not in self.frozen
            assert cgroup not in self.rested, "once is enough"
            assert cgroup != UNITS["sshd"][0]
            assert cgroup
            self.frozen[cgroup] = self.now
        self.samples = state.after_freeze(self.samples, action, self.now + TAKES)

    @rule(
        available=st.one_of(st.integers(0, 20 * GIB), st.integers(6 * GIB, 40 * GIB)),
        slope=st.sampled_from([-4.0 * GIB, -0.1 * GIB, 0.0, 0.01 * GIB, 2.0 * GIB]),
        pause=st.sampled_from([0.05, 0.25, 0.9]),
    )
    def time_goes_on(self, available: int, slope: float, pause: float) -> None:
        self.look(available, slope, pause)

    @rule(seconds=st.integers(1, 13))
    def memory_stays_short(self, seconds: int) -> None:
        for step in range(seconds * 5):
            self.look(12 * GIB - step * 2**20, 0.0, 0.2)

    @rule(key=st.sampled_from(list(UNITS)), more=st.integers(0, 20))
    def somebody_grows(self, key: str, more: int) -> None:
        if UNITS[key][0] not in self.frozen:
            self.held[key] += more * GIB

    @precondition(lambda self: self.samples.flight is not None)
    @rule()
    def the_victim_goes(self) -> None:
        self.alive -= {unit.key for unit in self.samples.flight.victim.units} if self.samples.flight else set()
        if self.victim:
            self.alive.discard(self.victim)

    @rule(key=st.sampled_from(list(UNITS)))
    def somebody_comes(self, key: str) -> None:
        self.alive.add(key)

    @rule(brake=st.sampled_from(["all", "jobs", "off"]), most=st.sampled_from([2.0, 10.0]))
    def it_is_told_to_reload(self, brake: str, most: float) -> None:
        self.policy = replace(self.policy, brake=brake, brake_at_most=most)  # type: ignore[arg-type]
        # Whoever is frozen for longer than is allowed now goes on at the next look.
        self.look(self.samples.look.available, 0.0, 0.05)

    @rule()
    def it_crashes_and_starts_again(self) -> None:
        """All that is left is what is kept of who is frozen."""
        kept = tuple(Frozen(cgroup, since) for cgroup, since in self.frozen.items())
        self.samples = Samples(Look(self.now, TOTAL, 60 * GIB, 0), frozen=kept)
        self.victim = None
        self.rested.clear()

    @invariant()
    def nobody_is_frozen_for_longer_than_may_be(self) -> None:
        allowed = self.policy.brake_at_most + TAKES
        late = [cgroup for cgroup, since in self.frozen.items() if self.now - since >= allowed]
        assert not late
        assert self.policy.brake != "off" or not self.frozen

    @invariant()
    def what_is_frozen_is_remembered(self) -> None:
        assert {frozen.cgroup for frozen in self.samples.frozen} == set(self.frozen)

    @invariant()
    def a_victim_can_act(self) -> None:
        flight: Flight | None = self.samples.flight
        for unit in flight.victim.units if flight else ():
            above = [cgroup for cgroup in self.frozen if f"{unit.freezer}/".startswith(f"{cgroup}/")]
            assert not unit.freezer or not above

    def teardown(self) -> None:
        """Memory is back: everybody goes on, one after the other, and soon."""
        for _ in range(len(UNITS) * 2):
            self.look(60 * GIB, 0.0, 0.3)
        assert not self.frozen


TestPaths = Paths.TestCase
TestPaths.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def short(available: int, *candidates: Candidate, **more: object) -> Samples:
    samples = Samples(Look(1000.0, TOTAL, available, 0), candidates, **more)  # type: ignore[arg-type]
    return replace(samples, thawed=0.0)


def job(key: str, size: int) -> Candidate:
    return Candidate(key, key, "job", f"/{key}", owner=1000, anonymous=size, first=Member(1, 1), freezer=f"/{key}")


def test_while_the_victim_dies_only_what_grows_is_frozen_and_below_kill_below_everybody_else() -> None:
    policy, names = Policy(), ("victim", "grows", "still")
    samples = Samples(Look(900.0, TOTAL, 30 * GIB, 0))
    samples = state.after_scan(samples, [job(name, 20 * GIB) for name in names], policy)
    for time, available, grown in ((901.0, 22 * GIB, 4), (902.0, 15 * GIB, 11)):
        samples = state.with_look(samples, Look(time, TOTAL, available, 0), policy)
        listed = [job("victim", (20 + grown) * GIB), job("grows", 20 * GIB + grown * GIB // 3), job("still", 20 * GIB)]
        samples = state.after_scan(samples, listed, policy)
    action = decide(samples, policy)
    assert action == Freeze(("/grows",), "memory is short and it grows")
    samples = state.after_freeze(samples, action, 902.0)
    action = decide(samples, policy)
    assert isinstance(action, Signal)
    assert action.victim.key == "victim"
    samples = state.after_signal(samples, action, 902.0)
    low = state.with_look(samples, Look(902.1, TOTAL, 7 * GIB, 0), policy)
    killed = decide(low, policy)
    assert isinstance(killed, Signal)
    low = state.after_signal(low, killed, 902.1)
    assert decide(low, policy) == Scan()
    low = state.after_scan(low, listed, policy)
    assert decide(low, policy) == Freeze(("/still",), "memory is all but gone")


def test_when_others_have_waited_for_too_long_the_next_victim_is_one_of_them() -> None:
    policy = Policy()
    jobs = job("stuck", 30 * GIB), job("waits", 20 * GIB), job("goes on", 40 * GIB)
    frozen = (Frozen("/waits", 989.0),)
    samples = short(12 * GIB, *jobs, frozen=frozen, flight=Flight(jobs[0], "KILL", 990.0, 12 * GIB))
    assert decide(samples, policy) == Land(False)
    samples = state.after_land(samples, Land(False))
    assert "stuck" in samples.spent
    action = decide(samples, policy)
    assert isinstance(action, Signal)
    assert (action.stage, action.victim.key) == ("TERM", "waits")
    samples = state.after_signal(samples, action, 1000.0)
    action = decide(samples, policy)
    assert isinstance(action, Thaw)
    assert action.units == ("/waits",)


def test_a_victim_that_goes_on_growing_has_forfeited_its_grace() -> None:
    policy, victim = Policy(), job("victim", 30 * GIB)
    flight = Flight(victim, "TERM", 999.9, 16 * GIB)
    fast = Samples(Look(1000.0, TOTAL, 15 * GIB - GIB // 5, 0, -10.0 * GIB), flight=flight, braked=15 * GIB)
    assert isinstance(decide(fast, policy), Signal), "below 0.9 of term_below before another look"
    slow = replace(fast, look=replace(fast.look, available=16 * GIB - 2**27))
    assert isinstance(decide(slow, policy), Wait)
    grown = replace(slow, candidates=(job("victim", 32 * GIB),), braked=None)
    action = decide(grown, policy)
    assert isinstance(action, Signal)
    assert action.stage == "KILL"


def test_a_job_of_several_steps_is_frozen_step_by_step() -> None:
    """A Slurm job's own cgroup holds the steps' daemons, which go on: its user steps are its parts."""
    steps = tuple(
        Candidate(step, step, "job", f"/job/{step}/user", anonymous=4 * GIB, freezer=f"/job/{step}/user")
        for step in ("step_0", "step_1")
    )
    job = Candidate("job", "job", "job", "/job", anonymous=8 * GIB, parts=steps)
    look = Look(10.0, 120 * GIB, 15 * GIB, GIB)
    samples = Samples(look, candidates=(job,), gpu_age=0.1)
    freeze = to_freeze(samples, Policy(), None)
    assert freeze is not None
    assert freeze.units == ("/job/step_0/user", "/job/step_1/user")


def test_who_was_let_go_at_a_look_is_not_frozen_at_the_same_one() -> None:
    """Nobody has taken what is missing, also by the GPU sample that was just taken: the look ends all the same."""
    policy = Policy()
    spared = replace(job("root", GIB), freezer=""), replace(job("sshd", GIB), protected=True)
    listed = [job("still", 20 * GIB), *spared]
    samples = Samples(Look(900.0, TOTAL, 30 * GIB, 0))
    samples = state.after_scan(samples, listed, policy, gpu_age=0.1)
    samples = state.with_look(samples, Look(902.0, TOTAL, 15 * GIB, 0), policy)
    samples = state.after_scan(samples, listed, policy, gpu_age=0.0)
    for wanted in (Freeze, Thaw, Wait):
        action = decide(samples, policy)
        assert isinstance(action, wanted)
        if isinstance(action, Freeze):
            assert action.units == ("/still",)
            samples = state.after_freeze(samples, action, 902.0)
        if isinstance(action, Thaw):
            samples = state.after_thaw(samples, action, 902.0)
