"""What became of a job of one's own: its log, its end and the host together."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from sparkhost.launcher import jobs
from sparkhost.tools.doctor import job
from sparkhost.tools.doctor.cli import main

ID = "0badcafe"


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of the caller's that has ended; the file that says how."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(jobs, "ENDS", tmp_path / "ends")
    jobs.record(jobs.Job(ID, "sft", ["python3", "train.py"], "/", time.time() - 60, 60 << 30, None, True))
    end = tmp_path / "ends" / str(os.getuid()) / ID
    end.parent.mkdir(parents=True)
    return end


def found_in(word: str | None, capsys: pytest.CaptureFixture[str]) -> set[str]:
    main(["--json", *(["job", word] if word else ["--last"])])
    return {finding["id"] for finding in json.loads(capsys.readouterr().out)["findings"]}


@pytest.mark.parametrize("word", [ID, "sft", None])
def test_log_and_end_are_looked_at_together(ended: Path, word: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    ended.write_text("result=exit-code code=exited status=1\n")
    (jobs.directory_of(ID) / "log").write_text("RuntimeError: operator torchvision::nms does not exist\n")
    assert {"job-failed", "torchvision"} <= found_in(word, capsys)


def test_a_job_whose_end_is_not_known_was_lost_with_the_host(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "job-lost" in found_in(ID, capsys)


def test_a_job_that_ended_well_has_no_trouble(ended: Path) -> None:
    ended.write_text("result=success code=exited status=0\n")
    (jobs.directory_of(ID) / "log").write_text("step 1\n")
    assert list(job.look(job.find(ID))) == []


def test_a_job_that_nobody_knows_is_one_line(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "nothing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_any_job_the_last_one_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["--last"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
