"""The observer's judgements, on texts of hosts that hung or served on, and on whatever else may come."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparkhost.base.units import GIB
from sparkhost.observer import memory, restarts
from sparkhost.observer.alarms import AGAIN, LASTS, MOST, Alarm, Alarms
from sparkhost.observer.kernel_log import MANY, WITHIN, Record, Tally, parse
from sparkhost.observer.orphans import Seen, is_orphan
from sparkhost.observer.told import KINDS
from sparkhost.observer.warnings import restarting

SEEN = Path(__file__).resolve().parent / "observed"
REFUSED = "NVRM: nvCheckOkFailedNoLog: Check failed: Out of memory [NV_ERR_NO_MEMORY] (0x00000051) returned"


def observed(name: str) -> str:
    return (SEEN / f"{name}.txt").read_text()


def tallied(lines: list[tuple[float, str]]) -> Tally:
    """Through the form that /dev/kmsg has."""
    tally = Tally()
    for number, (time, text) in enumerate(lines):
        record = parse(f"4,{number},{int(time * 1e6)},-;{text}\n SUBSYSTEM=pci\n".encode())
        assert record is not None
        tally.take(record)
    return tally


def journal(text: str) -> list[tuple[float, str]]:
    """Lines of `journalctl -k`, with their times of the day."""
    found = []
    for line in text.splitlines():
        match = re.search(r"(?:(\d\d):(\d\d):(\d\d) \w+ )?kernel: (.*)", line)
        if match:
            hours, minutes, seconds = (int(number or 0) for number in match.groups()[:3])
            found.append((hours * 3600.0 + minutes * 60 + seconds, match[4]))
    return found


def test_a_burst_before_a_host_hung_is_one() -> None:
    tally = tallied(journal(observed("nvrm-burst-then-wedge")))
    assert (tally.refused, tally.bursts, tally.lines) == (3, 1, 3)


def test_one_line_of_a_run_that_served_on_is_none() -> None:
    tally = tallied(journal(observed("nvrm-one-line-served")))
    assert (tally.refused, tally.bursts, tally.burst_at) == (1, 0, None)


def test_55_lines_of_a_host_at_rest_in_three_days_are_none() -> None:
    assert tallied([(index * 3 * 86400 / 55, REFUSED) for index in range(55)]).bursts == 0


@given(st.lists(st.integers(0, 120), max_size=40).map(sorted))
@example([0, 5, 10])
@example([0, 5, 11])
def test_a_burst_is_so_many_lines_in_so_many_seconds(times: list[int]) -> None:
    tally = tallied([(float(time), REFUSED) for time in times])
    windows = [(times[i], times[i + MANY - 1]) for i in range(len(times) - MANY + 1)]
    close = [last for first, last in windows if last - first <= WITHIN]
    assert tally.refused == len(times)
    assert (tally.bursts > 0) == bool(close)
    assert tally.burst_at == (close[-1] if close else None)
    assert tally.bursts * MANY <= len(times)
    assert tally.bursts == 0 or MANY <= tally.lines <= len(times)


def test_the_kernels_killer_called_by_the_driver_is_told_from_a_cap_at_work() -> None:
    lines = [(1.0, line) for line in observed("kernel-oom-in-nvidia-module").splitlines()]
    assert tallied(lines).kills == 1
    cap = (1.1, "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task_memcg=/training.slice")
    assert tallied([*lines, cap]).kills == 0
    assert tallied(lines[:1]).kills == 0
    assert tallied([(1.0, lines[0][1]), (60.0, lines[1][1])]).kills == 0


@pytest.mark.parametrize(
    "data", [b"", b";", b"4,1", b"12,1,5,-;" + REFUSED.encode(), b"x,1,2,-;a", b"4,1,-2,-;a", b"\xff" * 50]
)
def test_what_is_not_the_kernels_own_is_no_record(data: bytes) -> None:
    """12 is what /dev/kmsg makes of a line that a process writes: facility 1."""
    assert parse(data) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    if record := parse(data):
        Tally().take(record)


def test_22_gib_that_could_not_be_had_are_short() -> None:
    found = memory.parse(observed("meminfo-22gib-available-driver-refuses"))
    assert memory.at_once(found) == found["MemFree"]
    assert memory.is_short(found)


@pytest.mark.parametrize("name", ["meminfo-healthy-server-1700mib", "meminfo-healthy-server-4gib"])
def test_healthy_servers_with_little_memory_are_not(name: str) -> None:
    assert not memory.is_short(memory.parse(observed(name)))


def test_a_host_full_of_clean_cache_is_not_short() -> None:
    """Such as after a model was loaded: the cache is had back at once."""
    values = {"MemTotal": 120, "MemFree": 1, "MemAvailable": 95, "Cached": 95, "Mlocked": 0.02, "Unevictable": 0.02}
    assert not memory.is_short({name: int(size * GIB) for name, size in values.items()})


SIZES = st.integers(0, 2**40)
NAMES = ("MemTotal", "MemFree", "MemAvailable", "Cached", "Shmem", "Dirty", "Unevictable", "Mlocked", "SReclaimable")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, SIZES)))
def test_what_can_be_had_at_once_is_between_free_and_available(values: dict[str, int]) -> None:
    found = memory.at_once(values)
    if found is None:
        assert not {"MemFree", "MemAvailable", "Cached"} <= set(values)
        assert not memory.is_short(values)
        return
    assert values["MemFree"] <= found <= max(values["MemFree"], values["MemAvailable"])
    # More that is locked never leaves more.
    more = memory.at_once({**values, "Mlocked": values.get("Mlocked", 0) + GIB})
    assert more is not None
    assert more <= found


@given(st.text(max_size=400))
def test_any_text_is_parsed(text: str) -> None:
    assert all(size >= 0 for size in memory.parse(text).values())
    restarts.parse(text)
    memory.charged(text)
    memory.idle_pages(text)


def host(**gib: float) -> dict[str, int]:
    values = {"MemTotal": 121.6, "MemFree": 100.0, "Cached": 8.0, "AnonPages": 9.0, "Slab": 2.0, "PageTables": 0.5}
    return {name: int(size * GIB) for name, size in {**values, **gib}.items()}


def lost(found: dict[str, int], **gib: float) -> float:
    sizes = {"gpu": 0.0, "charged": 0.0, "idle": 0.0, "zfs": 0.0, **gib}
    return memory.unaccounted(found, **{name: int(size * GIB) for name, size in sizes.items()}) / GIB


def test_memory_that_nobody_holds_is_what_is_left_of_the_sum() -> None:
    """33 GiB that a failed start left behind, the list of programs on the GPU empty."""
    assert observed("vllm-free-memory-no-holder").rstrip().endswith("35 unless-stopped")
    assert lost(host()) == pytest.approx(2.1)
    assert lost(host()) * GIB < memory.limit(None)
    assert lost(host(MemFree=67.0)) * GIB > memory.limit(None)


def test_what_has_a_name_is_not_lost() -> None:
    """A model on the GPU, pages of a driver that a cgroup is charged with, lists of processors, ZFS, huge pages."""
    for explained in ({"gpu": 33.0}, {"charged": 33.0}, {"idle": 33.0}, {"zfs": 33.0}):
        assert lost(host(MemFree=67.0), **explained) == pytest.approx(2.1)
    for name in ("Hugetlb", "AnonPages", "Cached", "VmallocUsed"):
        full = host(MemFree=67.0)
        full[name] = full.get(name, 0) + 33 * GIB
        assert lost(full) == pytest.approx(2.1)


def test_what_the_hosts_devices_took_from_the_start_is_theirs_up_to_2_gib() -> None:
    assert memory.limit(0) == memory.limit(None) == 4 * GIB
    assert memory.limit(GIB) == 5 * GIB
    assert memory.limit(30 * GIB) == 6 * GIB


def test_kernel_pages_that_meminfo_does_not_list_are_those_beyond_the_listed() -> None:
    stat = "anon 7\nkernel 100\nkernel_stack 10\npagetables 20\npercpu 5\nsock 3\nslab 40\nvmalloc 5\n"
    assert memory.charged(stat) == 23
    assert memory.charged("kernel 1\nslab 5\n") == 0


def test_pages_of_single_processors_are_free() -> None:
    zoneinfo = "Node 0, zone Normal\n  pages free 5\n  pagesets\n    cpu: 0\n              count:    7\n   high: 9\n"
    assert memory.idle_pages(zoneinfo + "    cpu: 1\n              count:    8\n") == 15


def test_a_container_that_starts_for_ever_is_a_loop_from_the_fourth_time_on() -> None:
    """35 times by `restart: unless-stopped`, two minutes each."""
    seen = restarts.Restarts()
    for number in range(36):
        seen.seen(number * 120.0, {"container 0123456789ab": 1000 + number})
        loops = seen.loops(number * 120.0)
        assert bool(loops) == (number > 3)
    assert loops == {"container 0123456789ab": 31}
    assert "docker update --restart=no 0123456789ab" in restarting(*loops.popitem()).remedy
    assert seen.loops(36 * 120.0 + 3600) == {}


def test_a_container_that_runs_or_is_absent_for_a_while_is_none() -> None:
    seen = restarts.Restarts()
    for number in range(100):
        seen.seen(number * 10.0, {"container a": 5} if number % 3 else {})
    assert seen.loops(1000.0) == {}


def test_units_are_counted_by_systemds_own_number() -> None:
    shown = "NRestarts=7\nId=a.service\n\nId=b.service\nNRestarts=0\n\nId=c.service\nNRestarts=\n\nnonsense\n"
    assert restarts.parse(shown) == {"a.service": 7, "b.service": 0}
    seen = restarts.Restarts()
    seen.counted(0.0, {"a.service": 35, "getty@tty1.service": 0})
    assert seen.loops(0.0) == {}  # what was before is not of this hour, as far as is known
    seen.counted(300.0, {"a.service": 38, "getty@tty1.service": 9})
    assert seen.loops(300.0) == {}
    seen.counted(600.0, {"a.service": 0, "getty@tty1.service": 18})  # started by hand
    seen.counted(900.0, {"a.service": 1})
    assert seen.loops(900.0) == {"a.service": 4}


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 5)), max_size=60))
def test_loops_are_those_with_more_than_three_in_the_last_hour(steps: list[tuple[int, int]]) -> None:
    seen, now, count, times = restarts.Restarts(), 0.0, 0, []
    seen.counted(now, {"a.service": 0})
    for wait, more in steps:
        now, count = now + wait, count + more
        times += [now] * more
        seen.counted(now, {"a.service": count})
    recent = min(sum(now - time <= restarts.HOUR for time in times), restarts.KEPT)
    assert seen.loops(now) == ({"a.service": recent} if recent > restarts.MOST else {})


def test_many_names_are_bounded() -> None:
    seen = restarts.Restarts()
    for number in range(3000):
        seen.seen(1.0, {f"container {number}": number})
    assert len(seen._last) == restarts.NAMES


def processes() -> list[Seen]:
    """Of a `ps` of such a host; its nvidia-smi showed 104,277 MiB for the first."""
    assert "41022, VLLM::EngineCore, 104277 MiB" in observed("vllm-free-memory-orphan")
    found = []
    for line in observed("ps-orphaned-enginecore").splitlines()[1:]:
        pid, parent, _, cgroup, name = line.split(None, 4)
        found.append(Seen(int(pid), name[:15], int(parent), "", cgroup, 104277 * 2**20))
    return found


def test_an_engine_without_a_parent_is_an_orphan() -> None:
    assert [seen.pid for seen in processes() if is_orphan(seen)] == [41022, 41023]


def test_what_has_a_parent_a_service_or_little_memory_is_none() -> None:
    seen = processes()[0]
    assert is_orphan(seen._replace(parent=900, parent_name="systemd"))  # the user's own manager
    for other in (
        seen._replace(parent=41001, parent_name="vllm"),
        seen._replace(cgroup="/system.slice/vllm.service"),
        seen._replace(gpu=100 * 2**20),
        seen._replace(name="python3"),  # left running with nohup, on purpose
    ):
        assert not is_orphan(other)


def alarm(kind: str, about: str = "") -> Alarm:
    return Alarm(kind, about, "it is so", "do this")


def test_an_alarm_is_told_once_it_has_lasted_and_once_only() -> None:
    alarms, found = Alarms(), [alarm("unaccounted")]
    lasts = LASTS["unaccounted"]
    assert alarms.update(0.0, found) == ([], [], [])
    assert alarms.update(lasts - 1, found) == ([], [], [])
    assert alarms.update(lasts, found) == (found, found, [])
    assert alarms.update(lasts + 10, found) == (found, [], [])
    assert alarms.update(lasts + 20, []) == ([], [], found)
    # It comes and goes: not told anew each time.
    alarms.update(lasts + 30, found)
    assert alarms.update(2 * lasts + 30, found) == (found, [], [])
    alarms.update(lasts + AGAIN, [])
    alarms.update(lasts + AGAIN, found)
    assert alarms.update(2 * lasts + AGAIN, found) == (found, found, [])


@given(st.lists(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 60).map(str)), max_size=50), max_size=20))
def test_alarms_are_bounded_and_over_only_after_they_held(looks: list[list[tuple[str, str]]]) -> None:
    alarms = Alarms()
    held: set[tuple[str, str]] = set()
    for number, found in enumerate(looks):
        holds, new, over = alarms.update(number * 10.0, [alarm(*key) for key in found])
        keys = {(a.kind, a.about) for a in holds}
        assert len(holds) <= MOST
        assert {(a.kind, a.about) for a in new} <= keys - held
        assert {(a.kind, a.about) for a in over} == held - keys
        held = keys


def test_a_line_has_nothing_that_a_terminal_acts_on() -> None:
    line = Alarm("orphan", "1", "VLLM::\x1b[2J\n (process 1)", "kill 1").line
    assert line.isprintable()


def test_records_are_values() -> None:
    assert parse(b"6,339,5140900,-,caller=T1;NET: a\n DEVICE=x\n") == Record(5.1409, "NET: a")
