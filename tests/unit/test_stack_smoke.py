"""The smoke test's harness: whatever a step does is one row, and only a GPU's word is a pass. No GPU is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparkhost.smoke.matrix import TITLES, Row, keep, lines, main, smoke, tried
from sparkhost.smoke.steps import MARK, STEPS, assembler, outside

GOOD = {"ok": True, "gpu": "NVIDIA GB10", "capability": "12.1", "largest_difference": 0.01}


def step(tmp_path: Path, script: str, seconds: float = 20) -> Row:
    """Runs a script in the place of the steps."""
    path = tmp_path / "steps.py"
    path.write_text(script)
    return tried(sys.executable, "matmul_bf16", seconds, path)


def printing(value: Any) -> str:
    return f"print({MARK + json.dumps(value)!r})"


def test_every_step_has_a_title() -> None:
    assert list(TITLES) == list(STEPS)


def test_a_pass_has_the_gpu_that_it_was_seen_on(tmp_path: Path) -> None:
    row = step(tmp_path, "print('noise of a library')\n" + printing(GOOD))
    assert (row.verdict, row.gpu, row.capability, row.told) == (
        "pass",
        "NVIDIA GB10",
        "12.1",
        "largest_difference 0.01",
    )


@pytest.mark.parametrize(
    ("script", "verdict", "told"),
    [
        (printing({"missing": "vllm"}), "not run", "vllm is not in the stack"),
        (printing({**GOOD, "ok": False}), "fail", "largest_difference 0.01"),
        (printing({**GOOD, "gpu": ""}), "fail", "largest_difference 0.01"),
        (printing({**GOOD, "ok": "true"}), "fail", "largest_difference 0.01"),
        (printing({"ok": True}), "fail", 'it printed {"ok": true}'),
        (printing([1]), "fail", "it printed [1]"),
        (f"print({MARK!r} + 'nonsense')", "fail", "it printed nonsense"),
        (f"{printing(GOOD)}; {printing(GOOD)}", "fail", "exit code 0: it printed nothing"),
        (f"{printing(GOOD)}; raise SystemExit(3)", "fail", "exit code 3: it printed nothing"),
        ("raise RuntimeError('no kernel image\\x1b[2J')", "fail", "exit code 1: RuntimeError: no kernel image?[2J"),
        ("import os; os.kill(os.getpid(), 40)", "fail", "killed by signal 40: it printed nothing"),
        ("import os; os.abort()", "fail", "killed by SIGABRT: it printed nothing"),
    ],
)
def test_anything_else_is_no_pass(tmp_path: Path, script: str, verdict: str, told: str) -> None:
    row = step(tmp_path, script)
    assert (row.verdict, row.told) == (verdict, told)


def test_a_step_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    script = "import subprocess; subprocess.run(['sleep', '60'], start_new_session=True)"
    row = step(tmp_path, script, seconds=1)
    assert (row.verdict, row.told) == ("fail", "no answer within 1 s: killed")


def test_a_library_is_the_stacks_by_where_it_is_and_not_by_how_its_path_begins(tmp_path: Path) -> None:
    site, beside = tmp_path / "current-abc", tmp_path / "current-abcd"
    site.mkdir()
    (site / "linked.so").symlink_to(beside / "libcudart.so.13")
    own = f"{site}/nvidia/libcudart.so.13"
    foreign = [f"{beside}/libcudart.so.13", "/usr/local/cuda/lib64/libcublas.so.13", f"{site}/linked.so"]
    assert outside([own, *foreign], site) == foreign


def test_without_a_gpu_nothing_else_is_run() -> None:
    """The real steps, with a Python that has no torch."""
    found = smoke(sys.executable, "lab-000000000000")
    assert [row["verdict"] for row in found["rows"]] == ["not run"] * len(TITLES)
    assert found["rows"][0]["told"] == "torch is not in the stack"
    assert lines(found)[0].startswith("lab-000000000000 on no GPU")


def test_no_gpu_is_another_exit_code_than_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(sys.executable, "lab-000000000000", ["--json"], tmp_path) == 3
    assert "there is no GPU that torch can use" in capsys.readouterr().err


@pytest.mark.parametrize(("files", "wanted"), [(["ptxas"], "ptxas"), (["ptxas", "ptxas-blackwell"], "ptxas-blackwell")])
def test_tritons_own_ptxas_for_this_gpu(
    files: list[str], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_PTXAS_PATH", raising=False)
    bundled = tmp_path / "backends" / "nvidia" / "bin"
    bundled.mkdir(parents=True)
    for name in files:
        (bundled / name).touch()
    assert assembler(SimpleNamespace(__file__=str(tmp_path / "__init__.py"))) == str(bundled / wanted)
    monkeypatch.setenv("TRITON_PTXAS_PATH", "/usr/local/cuda/bin/ptxas")
    assert assembler(SimpleNamespace(__file__="")) == "/usr/local/cuda/bin/ptxas"


def test_the_last_result_of_a_release_is_kept(tmp_path: Path) -> None:
    found = smoke("python", "current-1", lambda _, name: Row(name, "pass", "", "NVIDIA GB10", "12.1"))
    path = keep(found, tmp_path)
    assert json.loads(path.read_text()) == found
    assert path.name == "current-1.json"
    assert "NVIDIA GB10 (sm_121)" in lines(found)[0]
