"""`spark` names every program that a measure puts where people find it, and tells what is here from what is not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from sparkhost.tools import overview

ROOT = Path(__file__).resolve().parents[2]


def test_it_names_the_programs_of_every_measure() -> None:
    """Those that its sources put on the PATH of users, by the name of the measure's module."""
    known = {(command.name, command.measure) for command in overview.COMMANDS}
    for path in (ROOT / "tasks").glob("*.py"):
        text = path.read_text()
        if "/usr/local/bin" in text:
            names = {found.name for found in (ROOT / "files" / path.stem).glob("spark-*")}
            named = {name for name in names if re.search(rf'[/"]{name}"', text)}
            assert named - {"spark-helper", "spark-job", "spark-job-end", "spark-watchdog", "spark-vllm-build"} == {
                name for name, measure in known if measure == path.stem
            }, path.name


def test_what_is_here_is_told_from_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "spark-top").symlink_to(shutil.which("true", path="/usr/bin:/bin") or "")
    assert overview.main([]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.split() == ["spark-top", "who", "holds", "the", "memory", "now?"]
    assert "spark-run (training_slice)" in last
    assert "spark-top" not in last
    assert overview.main(["--json"]) == 0
    paths = {found["name"]: found["path"] for found in json.loads(capsys.readouterr().out)["commands"]}
    assert paths["spark-top"] == str(tmp_path / "spark-top")
    assert paths["spark-run"] is None
