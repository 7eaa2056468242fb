"""A crowd of processes: who matters is in the table, and reading takes no longer for there being more of them."""

from __future__ import annotations

import errno
import os
import resource
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkhost.watchdog import survey
from sparkhost.watchdog.cgroup import Cgroups, Charge
from sparkhost.watchdog.model import GIB, MIB
from sparkhost.watchdog.process import SMALL, Processes
from sparkhost.watchdog.survey import AT_ONCE, FEW, MOST_TOLD, Survey

NOWHERE = Cgroups(Path("/nonexistent"))
PAGE = os.sysconf("SC_PAGE_SIZE")


class Procfs(Processes):
    """Stands for the kernel: says of each process what a dictionary says. `slow`: seconds that a read takes."""

    def __init__(self, folder: Path, slow: float = 0.0) -> None:
        super().__init__(folder)
        self.slow = slow
        self.there: dict[int, tuple[int, int, int, str]] = {}
        self.broken: dict[tuple[int, str], Exception] = {}
        self.reads = 0

    def put(
        self, pid: int, mib: float, parent: int = 1, start: int = 1, cgroup: str = "/system.slice/a.service"
    ) -> None:
        self.there[pid] = (int(mib * MIB), parent, start, cgroup)

    def numbers(self) -> Iterator[int]:
        yield from list(self.there)

    def read(self, pid: int, name: str) -> bytes:
        self.reads += 1
        if self.slow:
            time.sleep(self.slow)
        if error := self.broken.get((pid, name)):
            raise error
        if pid not in self.there:
            raise ProcessLookupError(errno.ESRCH, "x")
        size, parent, start, cgroup = self.there[pid]
        return {
            "stat": f"{pid} (x) S {parent} {pid} {pid} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 {size // PAGE} 0\n",
            "status": f"Uid:\t1000\nRssAnon:\t{size // 1024} kB\nRssShmem:\t0 kB\n",
            "cgroup": f"0::{cgroup}\n",
        }[name].encode()


@pytest.fixture
def procfs(tmp_path: Path) -> Procfs:
    """A directory has as many links as there are processes: here, a crowd of 3,000 that hold half a MiB each."""
    for number in range(FEW + 1):
        (tmp_path / f"link-{number}").mkdir()
    made = Procfs(tmp_path)
    for pid in range(2, 3_002):
        made.put(pid, 0.5)
    return made


def sizes(made: Survey, first: tuple[int, ...] = ()) -> dict[int, int]:
    return {process.pid: process.anonymous // MIB for process in made.table(first)}


def read_all(made: Survey) -> None:
    made.tour(1.0)
    while made._turn:
        made.tour(1.0)


def test_a_few_are_all_told(tmp_path: Path) -> None:
    procfs = Procfs(tmp_path)
    for pid in range(2, 2 + FEW):
        procfs.put(pid, 0.5)
    assert Survey(procfs, NOWHERE).table() == procfs.table()


def test_of_a_crowd_the_large_are_told_and_whom_they_descend_from(procfs: Procfs) -> None:
    procfs.put(10, 0.5, parent=1)
    procfs.put(11, 0.5, parent=10)
    procfs.put(12, 900, parent=11)
    made = Survey(procfs, NOWHERE)
    read_all(made)
    assert sizes(made) == {12: 900, 11: 0, 10: 0}
    assert made.left_out() == (2_999, 2_999 * MIB // 2)


def test_a_new_one_is_found_at_once_also_where_nobody_has_been_seen(procfs: Procfs) -> None:
    procfs.put(9_000, 700)
    assert sizes(Survey(procfs, NOWHERE))[9_000] == 700


def test_one_that_has_grown_is_found_by_the_charge_of_its_cgroup(procfs: Procfs, tmp_path: Path) -> None:
    """It is small when it is seen, and reading is so slow that its turn would come after a minute."""
    made = Survey(procfs, Cgroups(tmp_path / "cgroup"))
    read_all(made)
    for name, current in (("a", 90), ("b", 10)):
        folder = tmp_path / "cgroup" / name
        folder.mkdir(parents=True)
        (folder / "memory.current").write_text(f"{current * GIB}\n")
        (folder / "cgroup.procs").write_text("1500\n" if name == "a" else "")
    procfs.put(1_500, 90 * 1024)
    procfs.slow = 0.005
    assert sizes(made)[1_500] == 90 * 1024


def test_one_that_has_grown_is_found_when_its_turn_comes(procfs: Procfs) -> None:
    made = Survey(procfs, NOWHERE)
    read_all(made)
    procfs.put(1_500, 800)
    read_all(made)
    procfs.slow = 0.005
    assert sizes(made)[1_500] == 800


def test_who_holds_gpu_memory_is_told_however_small(procfs: Procfs) -> None:
    made = Survey(procfs, NOWHERE)
    read_all(made)
    assert 77 not in sizes(made)
    assert sizes(made, first=(77,))[77] == 0


def test_who_is_gone_is_forgotten_and_a_number_may_be_given_anew(procfs: Procfs) -> None:
    procfs.put(12, 900)
    procfs.put(13, 900)
    made = Survey(procfs, NOWHERE)
    read_all(made)
    del procfs.there[12]
    procfs.put(13, 600, start=99)
    found = {process.pid: process for process in made.table()}
    assert 12 not in found
    assert (found[13].start, found[13].anonymous) == (99, 600 * MIB)


@pytest.mark.parametrize("name", ["stat", "status", "cgroup"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), PermissionError(), ValueError(), IndexError()])
def test_one_that_cannot_be_read_hides_no_other_and_stays_what_it_was(
    procfs: Procfs, name: str, error: Exception
) -> None:
    procfs.put(12, 900)
    procfs.put(13, 800)
    made = Survey(procfs, NOWHERE)
    read_all(made)
    procfs.broken[(12, name)] = error
    assert sizes(made) == {12: 900, 13: 800}
    read_all(made)
    assert sizes(made) == {12: 900, 13: 800}


def test_a_crossing_takes_no_longer_for_more_processes(procfs: Procfs) -> None:
    """A read takes 2 ms here: all 3,000 would take 6 s. Meanwhile life is shown all the time."""
    beats: list[float] = []
    procfs.put(9_000, 700)
    procfs.slow = 0.002
    made = Survey(procfs, NOWHERE, lambda: beats.append(time.monotonic()))
    began = time.monotonic()
    assert sizes(made)[9_000] == 700
    took = time.monotonic() - began
    assert procfs.reads < 300
    assert took < AT_ONCE + 1.0
    assert len(beats) >= 3


def test_a_slice_is_a_part_of_the_pause_and_pauses_are_short_until_all_have_been_seen(procfs: Procfs) -> None:
    procfs.slow = 0.002
    made = Survey(procfs, NOWHERE)
    assert made.tour(1.0) <= survey.PAUSE_UNTIL_SEEN
    assert 0 < procfs.reads < 100
    procfs.slow = 0.0
    read_all(made)
    procfs.slow, procfs.reads = 0.002, 0
    assert 0.5 < made.tour(1.0) < 1.0
    assert 0 < procfs.reads < 100


def test_a_few_are_not_read_in_calm_times(tmp_path: Path) -> None:
    procfs = Procfs(tmp_path)
    procfs.put(7, 900)
    assert 0.6 < Survey(procfs, NOWHERE).tour(0.7) <= 0.7
    assert procfs.reads == 0


def test_a_proc_that_cannot_be_listed_costs_that_tour(procfs: Procfs) -> None:
    made = Survey(Processes(Path(procfs.proc)), NOWHERE)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        assert made.tour(1.0) > 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_swarm_of_small_ones_is_told_up_to_a_number(procfs: Procfs) -> None:
    for pid in range(4_000, 9_000):
        procfs.put(pid, 3)
    made = Survey(procfs, NOWHERE)
    read_all(made)
    assert list(sizes(made).values()).count(3) == survey.MOST_SMALL
    for pid in range(4_000, 9_000):
        procfs.put(pid, 5)
    read_all(made)
    assert MOST_TOLD <= len(made.table()) <= 2 * MOST_TOLD


def test_a_table_of_50000_takes_less_than_10_mib(procfs: Procfs) -> None:
    for pid in range(2, 50_002):
        procfs.put(pid, 0.5)
    made = Survey(procfs, NOWHERE)
    tracemalloc.start()
    try:
        made._drop([])
        for pid in procfs.there:
            made._look_at(pid, ())
        assert made.left_out()[0] == 50_000
        assert tracemalloc.get_traced_memory()[0] < 10 * MIB
    finally:
        tracemalloc.stop()


def test_charges_are_read_of_whole_units_the_largest_first(tmp_path: Path) -> None:
    procfs = Procfs(tmp_path)
    for number in range(2, 300):
        procfs.put(number, number, cgroup=f"/system.slice/u{number}.service/below")
        folder = tmp_path / f"system.slice/u{number}.service"
        folder.mkdir(parents=True)
        (folder / "memory.stat").write_text(f"anon {number}\nshmem 1\n")
    procfs.put(301, 999, cgroup="/user.slice/user-1000.slice/session-1.scope")
    made = Survey(procfs, Cgroups(tmp_path))
    found = made.charges(procfs.table())
    assert next(iter(found.items())) == ("/system.slice/u299.service", Charge(299, 1))
    assert all(name.startswith("/system.slice/") for name in found)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 40), st.integers(0, 40), st.floats(0, 50)), max_size=40))
def test_any_ancestry_ends(many: list[tuple[int, int, float]]) -> None:
    """Circles too: a table that is read while numbers are given anew may hold them."""
    procfs = Procfs(Path("/nonexistent"))
    for pid in range(1_000, 1_000 + FEW + 1):
        procfs.put(pid, 0)
    for pid, parent, mib in many:
        procfs.put(pid, mib, parent)
    large = {pid for pid, (size, *_) in procfs.there.items() if size // PAGE * PAGE >= SMALL}
    made = Survey(procfs, NOWHERE)
    for pid in procfs.numbers():
        made._look_at(pid, ())
    assert large <= {process.pid for process in made.table()}
