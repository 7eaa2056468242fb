"""Why a host died: lines as journalctl and the kernel print them, and the table that judges what they say."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sparkhost.base.resource import Failed
from sparkhost.base.units import GIB
from sparkhost.observer import ring
from sparkhost.observer.ring import STOP, Holder, Ring, Sample
from sparkhost.watchdog.last_boot import gather, judge, traces, words
from sparkhost.watchdog.last_boot.traces import Bursts, Entry, Kill, Traces

BOOT = "855fdf28b4a34440b519c7358f587380"
END = 1796093015.0
REFUSED = (
    "NVRM: nvCheckOkFailedNoLog: Check failed: Out of memory [NV_ERR_NO_MEMORY] (0x00000051) returned from "
    "_memdescAllocInternal(pMemDesc) @ mem_desc.c:1359"
)


def line(before: float, text: object, source: str = "kernel", **more: str) -> str:
    """A line of `journalctl --output=json`, so many seconds before the end."""
    moment = END - before
    raw = {"__REALTIME_TIMESTAMP": str(int(moment * 1e6)), "__MONOTONIC_TIMESTAMP": str(int((moment - 1e9) * 1e6))}
    raw |= {"MESSAGE": text, "SYSLOG_IDENTIFIER": source, "_BOOT_ID": BOOT, **more}  # type: ignore[dict-item]
    if source == "kernel":
        raw["_TRANSPORT"] = "kernel"
    return json.dumps(raw)


def read(*lines: str) -> list[Entry]:
    return traces.entries("\n".join(lines))


def sample(before: float, available: float = 90.0, **more: object) -> Sample:
    values = {"total": 120 * GIB, "available": int(available * GIB), "full": 0.0, "heat": 55.0, "bursts": 0, **more}
    return Sample(END - before, 5000 - before, BOOT, number=int(1000 - before), **values)  # type: ignore[arg-type]


WELL = tuple(sample(second) for second in range(59, -1, -1))
SEEN = Traces(
    boot=BOOT, ended=END, next_start=END + 40, has_journal=True, samples=WELL, has_ring=True, timer=0, problems=()
)
WEDGE = (*WELL[:-10], *(sample(second, 0.4, full=60.0) for second in range(9, -1, -1)))
HUNG = ("INFO: task python3:77 blocked for more than 122 seconds.",)
HUNG_PANIC = ("Kernel panic - not syncing: hung_task: blocked tasks",)
SUPPLY = ("x86/amd: Previous system reset reason [0x1]: power supply failed",)
NOTHING = {"has_journal": False, "samples": (), "has_ring": False, "ended": None, "timer": None}
OOM = Kill(END - 20, "the kernel's OOM killer", "Out of memory: Killed process 7 (python3)", False)
SSH = Kill(END - 90, "earlyoom", "sending SIGTERM to process 700 (sshd)", True)


@pytest.mark.parametrize(
    ("changed", "how", "why", "certainty"),
    [
        ({}, "cut", "power or firmware", "likely"),
        ({"next_start": END + 3600}, "cut", "unsure", "open"),
        ({"samples": (), "has_ring": False}, "cut", "unsure", "open"),
        ({"samples": tuple(replace(s, time=s.time - 300) for s in WELL)}, "cut", "unsure", "open"),
        ({"samples": WEDGE}, "cut", "memory", "likely"),
        # A server that lives at 2.5 GiB, and nobody waits: that alone is no reason, and no alibi either.
        ({"samples": tuple(sample(s, 2.5) for s in range(59, -1, -1))}, "cut", "unsure", "open"),
        ({"samples": (*WELL[:-1], sample(0, heat=92.0))}, "cut", "heat", "likely"),
        ({"samples": (*WELL[:-1], sample(0, gpu_heat=91.0))}, "cut", "heat", "likely"),
        ({"hot_lines": ("thermal thermal_zone3: critical temperature reached",)}, "cut", "heat", "likely"),
        ({"timer": 0x01}, "cut", "heat", "likely"),
        ({"timer": 0x10}, "cut", "power or firmware", "likely"),
        ({"reset_lines": SUPPLY}, "cut", judge.POWER, "likely"),
        ({"timer": 0x20}, "watchdog reset", "unsure", "open"),
        ({"timer": 0x20, "samples": WEDGE}, "watchdog reset", "memory", "likely"),
        ({"timer": 0x20, "hung_lines": HUNG}, "watchdog reset", judge.KERNEL, "likely"),
        ({"hung_lines": HUNG}, "cut", judge.KERNEL, "likely"),
        ({"panic": ("Kernel panic - not syncing: sysrq triggered crash",)}, "panic", "a person", "sure"),
        ({"panic": ("Kernel panic - not syncing: System is deadlocked on memory",)}, "panic", "memory", "sure"),
        ({"panic": HUNG_PANIC}, "panic", judge.KERNEL, "sure"),
        ({"panic": HUNG_PANIC, "samples": WEDGE}, "panic", "memory", "likely"),
        ({"panic": ("Kernel panic - not syncing: Fatal exception in interrupt",)}, "panic", judge.KERNEL, "sure"),
        ({"is_stopped": True, "asked": ("the power key was pressed",)}, "clean", "a person", "sure"),
        ({"is_shut": True}, "clean", "a person", "likely"),
        ({"is_stopped": True, "hot_lines": ("critical temperature reached (110 C)",)}, "clean", "heat", "likely"),
        ({"has_journal": False, "was_stopped_first": True}, "clean", "a person", "likely"),
        # Its unit was stopped, and the host was cut off later: the observer's word is not the host's.
        ({"was_stopped_first": True}, "cut", "power or firmware", "likely"),
        ({"ooms": (OOM,), "samples": (), "has_ring": False}, "OOM", "memory", "likely"),
        ({"ooms": (OOM,), "samples": (*WELL[:-1], sample(0, 2.0))}, "OOM", "memory", "likely"),
        # Killed, and memory came back: the end an instant later has another reason, and nobody knows which.
        ({"ooms": (OOM,)}, "OOM", "unsure", "open"),
        ({"bursts": Bursts(198, 3, END - 4), "samples": (*WELL[:-1], sample(0, 3.0))}, "cut", "memory", "likely"),
        ({"bursts": Bursts(198, 3, END - 4), "samples": (), "has_ring": False}, "cut", "memory", "likely"),
        ({"bursts": Bursts(1, 0, None)}, "cut", "power or firmware", "likely"),
        # The journal's last lines never reached the disk, the ring's count did.
        ({"samples": (*WELL[:-1], sample(0, 3.0, bursts=2))}, "cut", "memory", "likely"),
        ({"kills": (SSH,), "next_start": END + 900}, "cut", "a killer", "likely"),
        (NOTHING, "unknown", "unsure", "open"),
    ],
)  # fmt: skip
def test_the_table_says_what_a_person_would(changed: dict[str, object], how: str, why: str, certainty: str) -> None:
    verdict = judge.verdict(replace(SEEN, **changed))  # type: ignore[arg-type]
    assert (verdict.how, verdict.why, verdict.certainty) == (how, why, certainty)
    text = "\n".join(words.show(replace(SEEN, **changed)))  # type: ignore[arg-type]
    assert f"why: {why} ({certainty})" in text
    assert "what to do: " in text
    json.dumps(words.document(replace(SEEN, **changed)))  # type: ignore[arg-type]


def test_every_row_of_the_table_is_reached() -> None:
    """By the cases above: a row that no case reaches is one that nobody has thought through."""
    (mark,) = (m for m in test_the_table_says_what_a_person_would.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]
    reached = {judge.verdict(replace(SEEN, **case[0])).because for case in mark.args[1]}
    assert reached == {row.because for row in judge.TABLE}


def test_nothing_at_all_is_unsure() -> None:
    verdict = judge.verdict(Traces())
    assert (verdict.how, verdict.why, verdict.certainty) == ("unknown", "unsure", "open")


def test_a_burst_before_a_wedge_is_counted_and_dated() -> None:
    found = traces.bursts(read(*(line(8 - n / 4, REFUSED) for n in range(4)), line(1, "Linux version 6.17")))
    assert found[:2] == (4, 1)
    assert found.last == pytest.approx(END - 7.25)
    assert traces.bursts(read(line(50, REFUSED))) == Bursts(1, 0, None)
    assert traces.bursts(read(*(line(n, REFUSED, "someone") for n in range(9)))) == Bursts()


def test_an_end_in_order_is_journalds_last_word() -> None:
    stop = line(0, "Journal stopped", "systemd-journald", MESSAGE_ID=traces.JOURNAL_STOP)
    start = line(0, "Journal started", "systemd-journald", MESSAGE_ID=traces.JOURNAL_START)
    other = line(0, "x", "y")
    assert traces.is_stopped(read(other, stop))
    assert traces.is_stopped(read(stop, other, other))
    assert not traces.is_stopped(read(stop, start, other)), "a new journald, as after an upgrade"
    assert not traces.is_stopped(read(stop, *[other] * 60))
    assert not traces.is_stopped([])


def test_who_asked_for_the_end_is_named() -> None:
    found = traces.asked(
        read(
            line(700, "ann : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/sbin/reboot", "sudo"),
            line(30, "ann : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/systemctl --no-block reboot", "sudo"),
            line(29, "ann : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/ls /reboots", "sudo"),
            line(28, "Power key pressed short.", "systemd-logind", MESSAGE_ID=traces.POWER_KEY),
            line(27, "The system will reboot now!", "systemd-logind", MESSAGE_ID=traces.SHUTDOWN),
        ),
        END,
    )
    assert [text.partition(":")[0] for text in found] == ["sudo", "the power key was pressed", "systemd-logind"]


def test_who_sent_the_last_kills_is_said_as_far_as_it_is_known() -> None:
    found = traces.kills(
        read(
            line(9, "Out of memory: Killed process 9911 (VLLM::EngineCor) total-vm:1kB, anon-rss:2kB"),
            line(8, "Memory cgroup out of memory: Killed process 12 (python3) total-vm:1kB"),
            line(7, 'sending SIGTERM to process 700 uid 0 "sshd": badness 900', "earlyoom"),
            line(6, "vllm.service: Main process exited, code=killed, status=9/KILL", "systemd", UNIT="vllm.service"),
            line(5, "root : COMMAND=/usr/bin/kill -9 77", "sudo"),
            line(4, "killing the engine by SIGKILL", "dgx-anti-oom"),
            line(3, "somebody speaks of a SIGKILL", "python3"),
        )
    )
    assert [(kill.by, kill.is_vital) for kill in found] == [
        ("the kernel's OOM killer", False),
        ("earlyoom", True),
        ("somebody (the journal does not say who)", False),
        ("somebody, by sudo", False),
        ("dgx-anti-oom", False),
    ]


@pytest.mark.parametrize(
    "text",
    ["", "no", "[]", "null", "{}", '{"__REALTIME_TIMESTAMP": "x"}', '{"__REALTIME_TIMESTAMP": {}}', "[" * 5000],
)
def test_what_journalctl_never_prints_is_left_out(text: str) -> None:
    assert traces.entries(text) == []


def test_bytes_that_are_no_text_and_lines_too_long_are_taken() -> None:
    found = read(line(0, [78, 86, 255, 82, "x", -1]), line(0, None))
    assert [entry.text for entry in found] == ["NV�R", ""]


PANIC = """Panic#1 Part1
<4>[  101.123456] Call Trace:
<0>[  101.0] sysrq: Trigger a crash
<0>[  101.1] Kernel panic - not syncing: sysrq triggered crash
<4>[  101.2] CPU: 1 PID: 700 Comm: bash
"""


def test_what_a_panic_left_is_told_from_an_oops_that_was_survived() -> None:
    assert traces.panic(PANIC)[0] == "Kernel panic - not syncing: sysrq triggered crash"
    assert judge.of_panic(traces.panic(PANIC)) == "hand"
    assert traces.panic("Oops#1 Part1\n<1>[ 9.0] BUG: unable to handle page fault\n") == ()


class Journal:
    """journalctl at its interface: what it prints for some arguments."""

    def __init__(self, last: str = "", who: str = "", start: str = "", failed: str = "") -> None:
        self.last, self.who, self.start, self.failed = last, who, start, failed
        self.asked: list[Sequence[str]] = []

    def __call__(self, arguments: Sequence[str]) -> str:
        self.asked.append(arguments)
        if arguments[0] == "--boot=0":
            return self.start
        if self.failed:
            raise Failed(self.failed)
        if "--dmesg" in arguments:
            return "\n".join(one for one in self.last.splitlines() if '"kernel"' in one)
        return self.who if "+" in arguments else self.last


def gathered(folder: Path, journal: Journal, samples: Sequence[Sample] = (), status: str = "") -> Traces:
    written = Ring(folder / "ring")
    for one in samples:
        written.write(one)
    if status:
        (folder / "class/watchdog/watchdog0").mkdir(parents=True)
        (folder / "class/watchdog/watchdog0/bootstatus").write_text(status)
    return gather.Gathering(journal, folder, (str(folder / "pstore"),), str(folder / "ring")).traces()


def test_all_pieces_come_together(tmp_path: Path) -> None:
    (tmp_path / "pstore" / "7").mkdir(parents=True)
    (tmp_path / "pstore" / "7" / "dmesg.txt").write_text(PANIC)
    last = "\n".join([*(line(5, REFUSED) for _ in range(3)), line(1, "last", "app")])
    found = gathered(tmp_path, Journal(last), [sample(3), sample(2)], "32\n")
    assert found.panic[0].startswith("Kernel panic")
    assert (found.boot, found.ended, found.timer, found.bursts.number) == (BOOT, END - 1, 32, 1)
    assert [s.time for s in found.samples] == [END - 3, END - 2]
    assert found.problems == ()


def test_a_panic_of_an_earlier_boot_is_not_taken_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "pstore").mkdir()
    (tmp_path / "pstore" / "dmesg-efi-1").write_text(PANIC)
    os.utime(tmp_path / "pstore" / "dmesg-efi-1", (END - 86400, END - 86400))
    assert gathered(tmp_path, Journal(line(1, "x"))).panic == ()


def test_without_a_journal_the_ring_speaks_alone(tmp_path: Path) -> None:
    journal = Journal(failed="Data from the specified boot (-1) is not available")
    found = gathered(tmp_path, journal, [sample(2), sample(1), replace(sample(0), kind=STOP)])
    assert judge.verdict(found).how == "clean"
    assert any("not available" in problem for problem in found.problems)


def test_samples_of_another_boot_are_not_shown_as_the_last_minute(tmp_path: Path) -> None:
    other = "f" * 32
    older = gathered(tmp_path, Journal(line(0, "x", "y")), [replace(sample(500), boot=other)])
    assert (older.boot, older.samples, older.has_ring) == (BOOT, (), False)
    (tmp_path / "ring").unlink()
    newer = gathered(tmp_path, Journal(line(500, "x", "y")), [replace(sample(0), boot=other)])
    assert (newer.boot, newer.has_journal, len(newer.samples)) == (other, False, 1)


def test_each_question_to_the_journal_is_bounded(tmp_path: Path) -> None:
    journal = Journal(line(0, "x", "y"))
    gathered(tmp_path, journal)
    assert len(journal.asked) == 4
    for arguments in journal.asked:
        assert any(re.fullmatch(r"--lines=\d+", word) for word in arguments)
        assert any(word.startswith("--boot=") for word in arguments)


def test_what_somebody_named_a_process_reaches_no_terminal(tmp_path: Path) -> None:
    hostile = replace(sample(0), holders=(Holder(1, "\x1b[2Jx", GIB, 0),))
    said = "\n".join(words.show(gathered(tmp_path, Journal(line(0, "\x1b]0;owned\x07", "y")), [hostile])))
    assert "\x1b" not in said
    assert "\x07" not in said


def test_the_last_minute_is_shown_in_a_dozen_lines() -> None:
    shown = list(words.minute(WELL))
    assert len(shown) == 1 + len(words.SHOWN)
    assert shown[-1].startswith("     0 s  90.0 GiB available")
    assert ring.MOST_HOLDERS >= 2
