"""Who may start, and when: promises that fit beside each other, one place in the queue after the other."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkhost.base import gpu_sample
from sparkhost.base.units import GIB
from sparkhost.launcher import acts, admission, helper
from sparkhost.launcher import config as configuration
from sparkhost.launcher.acts import Denied
from sparkhost.launcher.admission import Room, Ticket
from sparkhost.launcher.bus import Bus
from sparkhost.launcher.client import Busy, ask
from sparkhost.launcher.config import Config
from sparkhost.launcher.request import Leave, Start
from sparkhost.launcher.unit import SLICE
from tests.unit.test_launcher_helper import as_user, own_socket

UID = 1  # daemon, on Debian and Ubuntu


class Host:
    """A host of 100 GiB with files elsewhere: cgroups of jobs come and go, and 4 GiB are used by all else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slice = path / "cgroup" / SLICE
        for directory in (self.slice, path / "run", path / "proc"):
            directory.mkdir(parents=True)
        self.use(4 * GIB)
        self.samples({})

    def use(self, count: int) -> None:
        """So much of the host's memory is not available."""
        rest = (100 * GIB - count) // 1024
        (self.path / "proc" / "meminfo").write_text(f"MemTotal: {100 * GIB // 1024} kB\nMemAvailable: {rest} kB\n")

    def job(self, id_: str, promise: int | str, use: int = 0, uid: int = UID) -> Path:
        cgroup = self.slice / f"spark-job-{uid}-{id_}.service"
        cgroup.mkdir(exist_ok=True)
        (cgroup / "memory.stat").write_text(f"anon {use}\nshmem 0\n")
        (cgroup / "memory.max").write_text(f"{promise}\n")
        return cgroup

    def samples(self, sizes: dict[int, tuple[str, int]], unified: bool = True) -> None:
        """GPU memory of processes: number → cgroup, bytes."""
        for pid, (cgroup, _) in sizes.items():
            (self.path / "proc" / str(pid)).mkdir(exist_ok=True)
            (self.path / "proc" / str(pid) / "cgroup").write_text(f"0::/{SLICE}/{cgroup}\n")
        processes = {str(pid): size for pid, (_, size) in sizes.items()}
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        value = {"boottime": now, "devices": [{"unified": unified, "processes": processes}]}
        Path(gpu_sample.PATH).write_text(json.dumps(value))


def redirect(path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(acts, "RUN", path / "run")
    monkeypatch.setattr(admission, "CGROUPS", path / "cgroup")
    monkeypatch.setattr(admission, "PROC", path / "proc")
    monkeypatch.setattr(admission, "WATCHDOG", path / "none")
    monkeypatch.setattr(gpu_sample, "PATH", str(path / "sample.json"))
    return Host(path)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return redirect(tmp_path, monkeypatch)


REFUSE, WAIT, WARN = (Config(admission=word) for word in ("refuse", "wait", "warn"))


def admitted(request: Start, config: Config = REFUSE, uid: int = UID) -> str:
    """The warning, or why it was not let through."""
    try:
        return f"started {acts.admit(request, uid, config)}".strip()
    except Denied as error:
        return str(error)


def ticket(request: Start, config: Config = REFUSE, uid: int = UID) -> tuple[str, str]:
    with pytest.raises(Denied) as denied:
        acts.admit(request, uid, config)
    wait = denied.value.more["wait"]
    return wait["ticket"], wait["place"]


def test_room_is_what_neither_jobs_nor_the_system_nor_the_reserve_have(host: Host) -> None:
    one = host.job("00000001", 40 * GIB, use=10 * GIB)
    host.job("00000002", 10 * GIB, use=12 * GIB)  # over its promise: what it has counts
    host.samples({7: (one.name, 20 * GIB)})
    host.use(10 * GIB + 20 * GIB + 12 * GIB + 5 * GIB)
    assert admission.look(REFUSE) == Room(100 * GIB, 16 * GIB, 5 * GIB, 52 * GIB, 50 * GIB, 2)
    assert admission.look(REFUSE).lacks(27 * GIB, 100 * GIB) == ""
    lack = admission.look(REFUSE).lacks(27 * GIB + 1, 100 * GIB)
    assert lack.startswith("27.0 GiB are promised, but 27.0 GiB are left: 2 jobs have 52.0 GiB of 100.0 GiB")
    assert "60.0 GiB are promised, but 10.0 GiB are left" in admission.look(REFUSE).lacks(60 * GIB, 60 * GIB)


def test_gpu_memory_that_nobody_sees_is_taken_for_the_jobs_and_own_memory_for_nobodys(host: Host) -> None:
    one = host.job("00000001", 40 * GIB, use=GIB)
    host.use(30 * GIB)
    Path(gpu_sample.PATH).unlink()
    assert admission.look(REFUSE).others == 0  # no sampler: the job may use all that it promised
    host.samples({7: (one.name, 20 * GIB)}, unified=False)
    assert admission.look(REFUSE).others == 29 * GIB


def test_a_cgroup_whose_promise_is_not_written_yet_counts_as_the_largest(host: Host) -> None:
    host.job("00000001", "max")
    assert admission.look(REFUSE).promised == Config().memory_max


def test_the_watchdogs_threshold_counts_where_it_is_higher(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (host.path / "watchdog.toml").write_text('term_below = "20GiB"\n')
    monkeypatch.setattr(admission, "WATCHDOG", host.path / "watchdog.toml")
    monkeypatch.setattr(admission, "term_below", lambda: 20 * GIB)
    assert admission.look(REFUSE).kept == 20 * GIB


def test_what_does_not_fit_is_warned_of_refused_or_waits(host: Host) -> None:
    host.job("00000001", 60 * GIB)
    big, small = Start(memory=30 * GIB), Start(memory=20 * GIB)
    assert [admitted(small, config) for config in (REFUSE, WAIT, WARN)] == ["started"] * 3
    assert admitted(big, WARN).startswith("started 30.0 GiB are promised, but 20.0 GiB are left")
    assert admitted(big).endswith("ask for less (--memory), or wait (--wait)")
    assert ticket(big, WAIT)[1] == "1 of 1"
    assert ticket(big._replace(wait=True), WARN)[1] == "2 of 2"
    assert "2 jobs wait for room" in admitted(small)


def test_a_job_that_names_no_size_has_an_empty_host_for_itself(host: Host) -> None:
    assert admitted(Start()).startswith("started 100.0 GiB are promised, but 80.0 GiB are left")
    assert admitted(Start(memory=100 * GIB)).startswith("100.0 GiB are promised")
    assert admitted(Start(), Config(admission="refuse", job_memory_default=GIB)) == "started"
    host.job("00000001", GIB)
    assert admitted(Start()).startswith("100.0 GiB are promised")


def test_first_come_first_served(host: Host) -> None:
    job = host.job("00000001", 60 * GIB)
    big, small = Start(memory=50 * GIB, wait=True), Start(memory=GIB, wait=True)
    (first, _), (second, place) = ticket(big), ticket(small)
    assert place == "2 of 2"
    assert ticket(small._replace(ticket=second)) == (second, "2 of 2")
    assert ticket(big._replace(ticket=first)) == (first, "1 of 2")  # asking again keeps the place
    assert ticket(small._replace(ticket=first), uid=2)[1] == "3 of 3"  # somebody else's ticket is none
    shutil.rmtree(job)
    assert ticket(small._replace(ticket=second))[1] == "2 of 3"
    assert admitted(big._replace(ticket=first)) == "started"
    host.job("00000002", 50 * GIB)
    assert admitted(small._replace(ticket=second)) == "started"


def test_a_place_that_nobody_asks_for_is_forgotten_and_one_can_be_given_up(host: Host) -> None:
    host.job("00000001", 80 * GIB)
    gone, _ = ticket(Start(memory=GIB, wait=True))
    here, _ = ticket(Start(memory=GIB, wait=True))
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    dead = Ticket(gone, UID, now - admission.STALE - 1)
    admission.write_queue(acts.RUN, [dead, Ticket(here, UID, now)])
    assert ticket(Start(memory=GIB, wait=True, ticket=here)) == (here, "1 of 1")
    acts.leave(Leave(here), uid=2)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert [t.id for t in admission.queue(acts.RUN, now)] == [here]
    acts.leave(Leave(here), UID)
    assert admission.queue(acts.RUN, now) == []


def test_who_waits_counts_among_the_jobs_of_a_user(host: Host) -> None:
    host.job("00000001", 80 * GIB)
    config = Config(admission="wait", jobs_max=2)
    mine, _ = ticket(Start(memory=GIB), config)
    assert "2 jobs of yours run or wait" in admitted(Start(memory=GIB), config)
    assert ticket(Start(memory=GIB, ticket=mine), config)[0] == mine


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary(max_size=200) | st.just(b"[" * 100_000) | st.just(b'[["x", 1, 1e999]]') | st.just(b"[[1,2,3,4]]"))
def test_a_file_that_is_no_queue_is_an_empty_one(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "queue.json").write_bytes(text)
    assert admission.queue(tmp_path, 0.0) == []


# Sizes that fill a gap to the last byte, that miss it by one GiB, and small ones that could overtake.
acts_of_users = st.lists(
    st.tuples(
        st.sampled_from(["ask", "wait", "wait", "end", "die", "leave"]),
        st.sampled_from([1, 10, 39, 40, 41, 70]),
        st.integers(0, 5),
    ),
    min_size=5,
    max_size=30,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=acts_of_users, word=st.sampled_from(["refuse", "wait"]))
def test_whatever_users_do_promises_fit_and_who_is_first_is_not_overtaken(
    tmp_path: Path, steps: list[tuple[str, int, int]], word: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path / secrets.token_hex(4)
        host = redirect(path, patch)
        config = Config(admission=word)
        jobs: list[Path] = []
        waiting: list[tuple[str, int]] = []  # as it must be: ticket, GiB
        for step, wished, which in steps:
            if step == "end" and jobs:
                shutil.rmtree(jobs.pop(which % len(jobs)))
            elif step in ("die", "leave") and waiting:
                id_, _ = waiting.pop(which % len(waiting))
                if step == "leave":
                    acts.leave(Leave(id_), UID)
                else:
                    left = admission.queue(acts.RUN, time.clock_gettime(time.CLOCK_BOOTTIME))
                    admission.write_queue(acts.RUN, [t._replace(seen=-99.0) if t.id == id_ else t for t in left])
            elif step in ("ask", "wait"):
                again = waiting[which % len(waiting)] if waiting and which else None
                size = again[1] if again else wished
                request = Start(
                    memory=size * GIB, wait=step == "wait" or bool(again), ticket=again[0] if again else None
                )
                first = not waiting or again == waiting[0]
                fits = sum(int((job / "memory.max").read_text()) for job in jobs) + size * GIB <= 80 * GIB
                try:
                    acts.admit(request, UID, config)
                except Denied as denied:
                    assert not (first and fits)
                    told = denied.more.get("wait")
                    if told and not again:
                        waiting.append((told["ticket"], size))
                else:
                    assert first
                    assert fits
                    jobs.append(host.job(secrets.token_hex(4), size * GIB))
                    waiting = [one for one in waiting if one != again]


class Pid1:
    """PID 1 in the place of the bus: says yes at once, and makes the unit's cgroup a moment later, as systemd does."""

    slice = Path()

    def start_unit(self, name: str, properties: list[tuple[str, str, object]], fds: list[int]) -> None:
        values = {key: value for key, _, value in properties}
        if os.fork() == 0:
            os.closerange(3, 256)  # the caller's lock, for one: PID 1 has none of that
            time.sleep(0.03)
            cgroup = self.slice / name
            cgroup.mkdir()
            (cgroup / "memory.max").write_text("max\n")
            time.sleep(0.01)
            (cgroup / "memory.max").write_text(f"{values['MemoryMax']}\n")
            os._exit(0)

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def address(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(configuration, "PATH", host.path / "launcher.json")
    configuration.PATH.write_text('{"group": "daemon", "admission": "refuse", "jobs_max": 5}')
    monkeypatch.setattr(acts, "Bus", Pid1)
    monkeypatch.setattr(Pid1, "slice", host.slice)
    name = f"\0sparkfleet-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(name)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            helper.serve(listener, idle=60)
            os._exit(0)
    yield name
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def at_once(count: int, act: Callable[[], str]) -> list[str]:
    """What so many processes of a training user are told who ask at the same time."""
    pipes = []
    for _ in range(count):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, as_user(UID, act).encode())
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    texts = []
    for reading in pipes:
        with os.fdopen(reading) as stream:
            texts.append(stream.read())
        os.wait()
    return texts


def patiently(address: str, request: Start) -> Callable[[], str]:
    def act() -> str:
        while True:
            try:
                return json.dumps(ask(request, own_socket(), address))
            except Busy:
                time.sleep(0.02)

    return act


@pytest.mark.skipif(os.getuid() != 0, reason="the helper is root, and its callers are not")
def test_two_starts_at_once_do_not_both_fit_into_one_gap(address: str, host: Host) -> None:
    told = at_once(8, patiently(address, Start(memory=30 * GIB)))
    assert sum('"ok": true' in text for text in told) == 2  # of 80 GiB
    assert sum("are left: 2 jobs have 60.0 GiB" in text for text in told) == 6


@pytest.mark.skipif(os.getuid() != 0, reason="the helper is root, and its callers are not")
def test_starts_at_once_are_counted_before_they_have_a_cgroup(address: str, host: Host) -> None:
    told = at_once(12, patiently(address, Start(memory=GIB)))
    assert sum('"ok": true' in text for text in told) == 5
    assert sum("5 jobs of yours are running" in text for text in told) == 7


@pytest.mark.skipif(os.getuid() != 0, reason="the helper is root, and its callers are not")
def test_the_queue_outlives_the_helper(address: str, host: Host) -> None:
    host.job("00000001", 80 * GIB)
    request = Start(memory=GIB, wait=True)
    first = json.loads(as_user(UID, patiently(address, request)))["wait"]
    assert first["place"] == "1 of 1"
    mine = request._replace(ticket=first["ticket"])
    with ExitStack() as held:  # another helper's process: nothing in memory is shared
        told = acts.answer(b"", [], UID, REFUSE, held)
    assert told["ok"] is False
    assert ticket(mine)[1] == "1 of 1"
    assert json.loads(as_user(UID, patiently(address, mine)))["wait"] == first


def test_a_lock_that_is_held_is_busy_and_no_failure(host: Host) -> None:
    with admission.lock(acts.RUN), pytest.raises(admission.Late), admission.lock(acts.RUN, patience=0.05):
        pass


def test_the_bus_is_not_asked_for_a_job_that_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bus, "__init__", lambda self: pytest.fail("asked"))
    host.job("00000001", 80 * GIB)
    (passed,) = own_socket()
    with ExitStack() as held, pytest.raises(Denied):
        acts.start(Start(memory=GIB), [passed], os.getuid(), REFUSE, held)
