"""`--help` of every program that a deploy puts on a path for people: of equal quality, as there are no man pages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[2] / "files"
# The Pythons hand everything on to Python; the others are started by systemd, never by a person.
NOT_BY_HAND = {"spark-python", "spark-vllm-python", "spark-vllm-build", "spark-helper", "spark-job", "spark-job-end"}
PROGRAMS = sorted(path for path in FILES.glob("*/spark-*") if path.name not in NOT_BY_HAND)
ENTRY = re.compile(r"^from (sparkhost[.\w]+) import (\w+)$", re.MULTILINE)


def called(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program from this checkout instead of from where a deploy puts it."""
    entry = ENTRY.search(program.read_text())
    assert entry, program
    start = f"import sys; from {entry[1]} import {entry[2]} as main; sys.exit(main())"
    if entry[1] in ("sparkhost.stack.cli", "sparkhost.vllm_source.cli"):
        start = start.replace("main()", "main(sys.argv[1:])")
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        env={**os.environ, "PYTHONPATH": str(FILES / "host"), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_help_says_how_to_call_it_what_its_exit_code_means_and_shows_it(program: Path) -> None:
    for option in ("--help", "-h"):
        shown = called(program, option)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.startswith(f"usage: {program.name} ")
        assert re.search(r"^Exit code: ", shown.stdout, re.MULTILINE)
        assert program.name in shown.stdout.partition("\nexamples:\n")[2]
        assert "--json" in shown.stdout
        assert max(map(len, shown.stdout.splitlines())) <= 120


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_mistake_on_the_command_line_is_told_in_words_with_exit_code_2(program: Path) -> None:
    shown = called(program, "--no-such-option")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert program.name in shown.stderr
    assert "Traceback" not in shown.stderr


def test_who_holds_the_memory_can_be_read_by_programs() -> None:
    told = json.loads(called(FILES / "training_slice" / "spark-top", "--json").stdout)
    assert 0 < told["available"] < told["total"]
    for holder in told["holders"]:
        assert holder.keys() == {"user", "what", "cpu", "gpu"}
