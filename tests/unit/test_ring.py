"""The ring of samples: what outlives a torn write, a restart and a kill, and how much is written for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sparkhost.base.units import GIB
from sparkhost.observer import ring, samples
from sparkhost.observer.recorder import Eyes, Recorder, boot_id, is_tense
from sparkhost.observer.ring import BLOCK, MINUTE, RECORD, SECONDS, SIZE, STOP, Holder, Ring, Sample

HOST = Path(__file__).resolve().parents[2] / "files" / "host"
BOOT = "0123456789abcdef0123456789abcdef"
PLENTY = Sample(
    time=1796093015.25,
    boottime=100.5,
    boot=BOOT,
    total=120 * GIB,
    available=90 * GIB,
    free=60 * GIB,
    at_once=80 * GIB,
    swap_free=0,
    full=0.0,
    some=1.25,
    clock=2405,
    clock_most=3003,
    heat=61.5,
    gpu_heat=58.0,
    load=3.5,
    refused=2,
    bursts=0,
    holders=(Holder(4711, "VLLM::EngineCor", 3 * GIB, 70 * GIB), Holder(12, "python3", GIB, 0)),
)


def at(second: float, **values: object) -> Sample:
    return replace(PLENTY, time=PLENTY.time + second, boottime=PLENTY.boottime + second, **values)  # type: ignore[arg-type]


def test_a_sample_is_read_as_it_was_written(tmp_path: Path) -> None:
    unknown = Sample(1.0, 2.0, BOOT)
    written = Ring(tmp_path / "ring")
    written.write(PLENTY)
    written.write(unknown)
    assert ring.read(str(tmp_path / "ring")) == ([PLENTY, replace(unknown, number=1)], [])


def test_the_file_never_grows_and_keeps_the_last_of_each_ring(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    written = Ring(path)
    for second in range(SECONDS + 100):
        written.write(at(second))
    for minute in range(3):
        written.write(at(minute * 60, kind=MINUTE))
    seconds, minutes = ring.read(str(path))
    assert [sample.number for sample in seconds] == list(range(100, SECONDS + 100))
    assert [sample.boottime for sample in minutes] == [100.5, 160.5, 220.5]
    assert path.stat().st_size == SIZE < 2**20
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_writer_goes_on_behind_the_last_sample(tmp_path: Path) -> None:
    for second in range(3):
        Ring(tmp_path / "ring").write(at(second))
    assert [sample.number for sample in ring.read(str(tmp_path / "ring"))[0]] == [0, 1, 2]


def test_a_torn_sample_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    written = Ring(path)
    for second in range(20):
        written.write(at(second))
    with path.open("r+b") as file:
        file.seek(BOOT_OF_SEVENTH)
        file.write(b"\xff")
        file.seek(BLOCK + 19 * RECORD + RECORD // 2)
        file.write(bytes(RECORD // 2))  # the second half never reached the disk
    assert [sample.number for sample in ring.read(str(path))[0]] == [n for n in range(19) if n != 7]
    Ring(path).write(at(99))
    assert ring.read(str(path))[0][-1].boottime == at(99).boottime


BOOT_OF_SEVENTH = BLOCK + 7 * RECORD + 30


@pytest.mark.parametrize("kind", ["foreign", "short", "link", "fifo"])
def test_what_is_no_ring_is_replaced_and_never_followed(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "ring", tmp_path / "victim"
    victim.write_text("mine")
    if kind == "foreign":
        path.write_bytes(b"x" * SIZE)
    elif kind == "short":
        path.write_bytes(ring.TITLE)
    elif kind == "link":
        path.symlink_to(victim)
    else:
        os.mkfifo(path)
    Ring(path).write(PLENTY)
    assert ring.read(str(path))[0] == [PLENTY]
    assert victim.read_text() == "mine"


def test_a_minute_is_the_worst_of_its_seconds(tmp_path: Path) -> None:
    worst = (Holder(9, "taker", 80 * GIB, 0),)
    recorder = made(tmp_path)
    for second in range(70):
        low = {"available": 2 * GIB, "holders": worst, "clock": 800} if second == 30 else {}
        hot = {"heat": 91.0} if second == 40 else {}
        recorder.take(at(20 + second, **low, **hot))  # a minute of the host begins
    (minute,) = ring.read(str(tmp_path / "ring"))[1]
    assert (minute.available, minute.clock, minute.heat, minute.holders) == (2 * GIB, 800, 91.0, worst)
    recorder.take(at(160))
    second_minute = ring.read(str(tmp_path / "ring"))[1][-1]
    assert second_minute.available == 90 * GIB


def made(folder: Path) -> Recorder:
    return Recorder(folder / "ring", Eyes(Path("/proc"), Path("/sys"), str(folder / "none"), lambda: None))


def test_the_disk_is_made_to_keep_it_every_5_s_in_peace_and_every_second_when_tense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at the kernel's door: more wear than documented, or less care, is red."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    recorder = made(tmp_path)

    def syncs(seconds: range, **values: object) -> int:
        synced.clear()
        for second in seconds:
            recorder.take(at(second, **values))
        return len(synced)

    assert syncs(range(100)) == 20
    assert syncs(range(100, 160), available=20 * GIB) == 60
    assert syncs(range(160, 280)) in (119, 120), "for two minutes after"
    assert syncs(range(300, 400)) == 20


@pytest.mark.parametrize(
    ("values", "tense"),
    [
        ({}, False),
        ({"available": 31 * GIB}, False),
        ({"available": 29 * GIB}, True),
        ({"heat": 80.0}, True),
        ({"gpu_heat": 85.0}, True),
        ({"full": 6.0}, True),
        ({"bursts": 1}, True),
        ({"total": None, "available": None, "heat": None, "gpu_heat": None, "full": None, "bursts": None}, False),
    ],
)
def test_tense_is_what_may_end_within_seconds(values: dict[str, object], tense: bool) -> None:
    assert is_tense(replace(PLENTY, **values), 0) is tense  # type: ignore[arg-type]


def test_a_ring_that_cannot_be_written_is_told_and_holds_nothing_up(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "none" / "ring", Eyes(Path("/proc"), Path("/sys"), "", lambda: None))
    recorder.start()
    until = time.monotonic() + 10
    while not recorder.problem and time.monotonic() < until:
        time.sleep(0.05)
    assert "No such file" in recorder.problem
    (tmp_path / "none").mkdir()
    while recorder.problem and time.monotonic() < until:
        time.sleep(0.05)
    recorder.stop()
    assert ring.read(str(tmp_path / "none" / "ring"))[0]


@pytest.mark.parametrize(("how", "last"), [(signal.SIGTERM, STOP), (signal.SIGKILL, ring.SECOND)])
def test_the_observer_itself_records_and_says_when_it_was_told_to_end(
    tmp_path: Path, how: signal.Signals, last: int
) -> None:
    path, log = tmp_path / "ring", tmp_path / "kmsg"
    log.touch()
    words = ("--file", f"{tmp_path}/state.json", "--ring", str(path), "--kernel-log", str(log), "--every", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "sparkhost.observer", *words], cwd=HOST, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 20
        while (not path.exists() or len(ring.read(str(path))[0]) < 3) and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(how)
        process.wait(10)
    finally:
        process.kill()
    found = ring.read(str(path))[0]
    assert len(found) >= 3
    assert found[-1].kind == last
    assert found[-1].boot == boot_id()
    assert found[-1].available
    assert found[-1].holders
    assert 0.5 < found[1].boottime - found[0].boottime < 3


def test_it_is_printed_as_one_bounded_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = Ring(tmp_path / "ring")
    hostile = (Holder(1, "\x1b[2J\u202e", 2**40, 2**40),) * 5
    for minute in range(ring.MINUTES + 5):
        written.write(at(minute * 60, kind=MINUTE, holders=hostile))
    assert samples.show(str(tmp_path / "ring"), "minutes", samples.MOST) == 0
    text = capsys.readouterr().out
    assert len(text) < 2**19
    assert "\x1b" not in text
    printed = json.loads(text)
    assert len(printed["rows"]) == ring.MINUTES
    row = dict(zip(printed["columns"], printed["rows"][-1], strict=True))
    assert (row["available"], row["heat"], row["stopped"]) == (90 * GIB, 61.5, False)
    assert samples.show(str(tmp_path / "ring"), "minutes", 2) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2
    assert samples.show(str(tmp_path / "none"), "minutes", 2) == 1
    assert capsys.readouterr().err.count("\n") == 1
