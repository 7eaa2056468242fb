"""What the launcher reads of the watchdog and its sampler, written by their own code."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sparkhost.launcher import gpu, report
from sparkhost.launcher.attach import Ending, parse_end
from sparkhost.sampler import main as sampler
from sparkhost.watchdog.model import GIB, Candidate, Look, Policy
from sparkhost.watchdog.report import event
from sparkhost.watchdog.teller import Teller
from sparkhost.watchdog.trace import encode

UNIT = "spark-job-1001-0123abcd.service"
KILLED = Ending(unit=parse_end("result=signal code=killed status=KILL oom=0 oom_kill=0"))


def ended(state: Path, kind: str, unit: str = UNIT, **more: Any) -> None:
    """The watchdog ends a job, and tells."""
    victim = Candidate(f"/training.slice/{unit}", unit, "job", f"/training.slice/{unit}", owner=1001, anonymous=GIB)
    look = Look(time=1.0, total=120 * GIB, available=2 * GIB, free=GIB)
    values = {"dry_run": False, "time": time.time(), "reason": "2.0 GiB are left", **more}
    record = event(kind, look, Policy(), victim=victim, candidates=[victim], **values)
    teller = Teller(state, state / "run", journal_socket=str(state / "none"), terminals_dir=state)
    teller.take(json.loads(json.dumps(record, default=encode)))


def found(state: Path, code: int = 137, since: float = 0.0, ending: Ending = KILLED) -> dict[str, Any] | None:
    return report.find_postmortem(ending, code, UNIT, since, state)


def test_a_job_that_the_watchdog_killed_says_so(tmp_path: Path) -> None:
    ended(tmp_path, "kill")
    ended(tmp_path, "landed", gone=True)
    record = found(tmp_path)
    assert record is not None
    said = report.cause(KILLED, 137, GIB, None, record)
    assert said == "killed by the watchdog: 2.0 GiB are left (spark-why says more)"


def test_a_job_that_saved_its_work_when_asked_to_end_says_so(tmp_path: Path) -> None:
    ended(tmp_path, "term", reason="3 GiB\x1b[2J")
    ending = Ending(unit=parse_end("result=success code=exited status=0"))
    record = found(tmp_path, 0, ending=ending)
    assert report.cause(ending, 0, GIB, None, record).startswith("asked to end by the watchdog: 3 GiB?[2J")


def test_records_of_other_jobs_of_dry_runs_and_of_before_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "PATIENCE", 0.1)
    ended(tmp_path, "kill", "spark-job-1001-00000000.service")
    ended(tmp_path, "kill", dry_run=True)
    ended(tmp_path, "landed", gone=True)
    assert found(tmp_path) is None
    ended(tmp_path, "kill")
    assert found(tmp_path, since=time.time() + 60) is None
    assert found(tmp_path) is not None
    of_the_cap = Ending(unit=parse_end("result=oom-kill code=killed status=KILL oom=1 oom_kill=1"))
    assert found(tmp_path, ending=of_the_cap) is None
    assert found(tmp_path / "absent") is None


@pytest.mark.parametrize("text", ["not json", '["a list"]', "{}", '{"time": "x"}', '{"time": 1, "event": "kill"}'])
def test_a_record_of_another_version_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "1-kill.json").write_text(text)
    assert report.postmortem(UNIT, 0, tmp_path) is None


def test_gpu_memory_of_a_job_is_that_of_its_processes_on_every_gpu(tmp_path: Path) -> None:
    for pid, cgroup in ((11, f"/training.slice/{UNIT}"), (12, f"/training.slice/{UNIT}/inner"), (13, "/elsewhere")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(f"0::{cgroup}\n")
    devices: list[dict[str, object]] = [
        {"name": "GB10", "unified": True, "processes": {11: 5, 12: 7, 13: 100}},
        {"name": "H100", "unified": False, "processes": {11: 1}},
    ]
    sample = tmp_path / "sample.json"
    sampler.write(sample, devices, None)
    assert gpu.by_process(sample) == {11: 6, 12: 7, 13: 100}
    assert gpu.of_cgroup(f"/training.slice/{UNIT}", sample, tmp_path) == 13
    sampler.write(sample, [], "the driver is gone")
    assert gpu.of_cgroup(f"/training.slice/{UNIT}", sample, tmp_path) is None
