"""`spark-stack smoke --bench`: the reference and the drift. A script stands for the stack's Python."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparkhost.smoke import bench, bench_step
from sparkhost.smoke.bench import FILE, NEW, NoAnswer, lines, main, measured
from sparkhost.smoke.bench_step import MARK
from sparkhost.stack import cli as stack_cli
from sparkhost.stack import store as stack_store


def answer(gemv: float = 240.0, copy: float = 220.0, gpu: str = "NVIDIA GB10") -> str:
    rates = {name: {"median": rate, "slowest": rate - 5, "runs": 9} for name, rate in (("gemv", gemv), ("copy", copy))}
    return f"print({MARK + json.dumps({**rates, 'gpu': gpu, 'torch': '2.13.0'})!r})"


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "step.py"
    monkeypatch.setattr(measured, "__defaults__", (20.0, path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return path


def ran(step: Path, script: str, *words: str) -> int:
    step.write_text(script)
    return main(sys.executable, "r-1", words, step.parent / "kept")


def kept(step: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((step.parent / "kept" / FILE).read_text())
    return found


def test_the_first_result_is_the_reference_and_stays(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(step, answer()) == 0
    assert "no reference yet" in capsys.readouterr().out
    assert ran(step, answer(gemv=200)) == 0  # 83 %
    assert "83% of the reference" in capsys.readouterr().out
    assert ran(step, answer(gemv=170)) == 1  # slow by and by: not compared with the last one
    assert (kept(step)["reference"]["median"]["gemv"], kept(step)["last"]["median"]["gemv"]) == (240, 170)


@pytest.mark.parametrize(
    ("gemv", "copy", "said", "code"),
    [
        (73, 221, "the slow state at full clock", 1),
        (73, 70, "does another program use the GPU", 1),
        (239, 100, "does another program use the GPU", 1),
        (193, 177, "% of the reference", 0),
    ],
)
def test_drift_is_told_by_its_kind(
    step: Path, capsys: pytest.CaptureFixture[str], gemv: float, copy: float, said: str, code: int
) -> None:
    ran(step, answer())
    capsys.readouterr()
    assert ran(step, answer(gemv, copy)) == code
    out = capsys.readouterr().out
    assert said in out
    assert ("SLOWER" in out) == bool(code)


def test_another_gpu_or_root_s_word_begins_anew(step: Path) -> None:
    ran(step, answer())
    assert ran(step, answer(60, 60, "NVIDIA N1X")) == 0
    assert kept(step)["reference"]["gpu"] == "NVIDIA N1X"
    assert ran(step, answer(30, 30, "NVIDIA N1X"), NEW) == 0
    assert kept(step)["reference"]["median"] == {"gemv": 30, "copy": 30}


def test_a_user_sees_the_drift_and_keeps_nothing(
    step: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(step, answer())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ran(step, answer(gemv=70)) == 1
    assert kept(step)["last"]["median"]["gemv"] == 240
    assert ran(step, answer(), NEW) == 2
    assert "is for root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise RuntimeError('no kernel image\\x1b[2J')", "exit code 1: RuntimeError: no kernel image?[2J"),
        ("pass", "something else than figures"),
        (answer(gemv=0), "something else than figures"),
        (answer(gemv=float("nan")), "something else than figures"),
        (answer(gpu=""), "something else than figures"),
        (f"print({MARK!r} + '[' * 100000)", "something else than figures"),
        (f"{answer()}; {answer()}", "something else than figures"),
    ],
)
def test_what_is_no_figure_is_one_line_and_kept_nowhere(
    step: Path, capsys: pytest.CaptureFixture[str], script: str, said: str
) -> None:
    assert ran(step, script) == 1
    assert said in capsys.readouterr().err
    assert not (step.parent / "kept").exists()


def test_a_step_that_hangs_is_killed(step: Path) -> None:
    step.write_text("import time; time.sleep(60)")
    with pytest.raises(NoAnswer, match="no answer within 1 s"):
        measured(sys.executable, 1.0, step)


def test_without_a_gpu_nothing_is_measured(step: Path) -> None:
    assert ran(step, "raise SystemExit(3)") == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"reference": {"gpu": "x", "median": {"gemv": 0, "copy": 1}}}'])
def test_a_damaged_reference_is_none(step: Path, text: str) -> None:
    (step.parent / "kept").mkdir()
    (step.parent / "kept" / FILE).write_text(text)
    assert ran(step, answer()) == 0
    assert kept(step)["reference"]["median"]["gemv"] == 240


def test_rates_are_bytes_over_the_gpu_s_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is a double here: an event knows when it was recorded, and each call takes the GPU 2 ms."""
    clock = [0.0]

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.at = 0.0

        def record(self) -> None:
            self.at = clock[0]

        def elapsed_time(self, end: Event) -> float:
            return end.at - self.at

    def call() -> None:
        clock[0] += 2.0

    monkeypatch.setattr(bench_step, "SECONDS", 0.05)
    torch = SimpleNamespace(cuda=SimpleNamespace(Event=Event, synchronize=lambda: None))
    found = bench_step.measured(torch, call, 500_000_000)
    assert (found["median"], found["slowest"]) == (250.0, 250.0)


def test_the_command_knows_its_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stack_store, "STORE", tmp_path)
    assert stack_cli.main(["smoke", "--bench", "--json", NEW]) == 1  # no stack
    assert stack_cli.main(["smoke", "--bench", "--nonsense"]) == 2
    assert stack_cli.main(["smoke", "--nonsense"]) == 2


def test_figures_are_for_people() -> None:
    now = bench.of_step([json.dumps({"gemv": {"median": 241.23, "slowest": 200}, "copy": {"median": 1, "slowest": 1},
                                     "gpu": "NVIDIA GB10", "torch": "2.13"})])  # fmt: skip
    assert now is not None
    assert "   241.2 GB/s, at worst 200.0" in "\n".join(lines(now, None))
