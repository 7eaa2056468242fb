"""The commands about runs that are kept: list them, compare them."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sparkfleet.audit import history
from sparkfleet.audit.model import Run, Status
from sparkfleet.audit.store import Store
from sparkfleet.cli import Parser
from sparkfleet.exit_codes import CommandFailed
from tests.unit.audit_runs import CONTROLS, HOSTILE, run

P, F = Status.PASS, Status.FAIL
OLD = run({"spark1": [P] * 5}, id="20261123T121500Z-aaaa", fleet_file="a.yaml")
NEW = run({"spark1": [F, P, P, P, P]}, id="20261124T121500Z-bbbb", fleet_file="a.yaml")
OTHER = run({"x": [P] * 5}, id="20261124T000000Z-cccc", fleet_file="other\x1b.yaml")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for one in (OLD, OTHER, NEW):
        Store(tmp_path).append(one, CONTROLS)
    return tmp_path


def call(store: Path, *words: str, judge_again: history.JudgeAgain | None = None) -> int:
    parser = Parser(prog="sparkfleet audit")
    history.add_arguments(parser.add_subparsers(), CONTROLS, judge_again)
    arguments: argparse.Namespace = parser.parse_args([*words, "--store", str(store)])
    return int(arguments.run(arguments))


def test_runs_are_listed_newest_first(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(store, "runs") == 0
    assert capsys.readouterr().out.splitlines() == [
        "20261124T121500Z-bbbb  a.yaml  4 pass, 1 fail",
        r"20261124T000000Z-cccc  other\x1b.yaml  5 pass",
        "20261123T121500Z-aaaa  a.yaml  5 pass",
    ]
    assert call(store, "runs", "--count", "1") == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert call(store / "none", "runs") == 0
    assert capsys.readouterr().out == ""


def test_the_newest_is_compared_with_the_one_before_of_its_fleet(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(store, "diff") == 2
    out = capsys.readouterr().out
    assert out.startswith("From 20261123T121500Z-aaaa to 20261124T121500Z-bbbb: newly failing: SPK-SWAP-01\n")
    assert "critical: no swap is in use" in out


def test_two_runs_are_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(store, "diff", "20261124T12", "20261123") == 0
    assert "\nFixed\n" in capsys.readouterr().out
    assert call(store, "diff", "20261123", "--json") == 2
    assert json.loads(capsys.readouterr().out)["worse"] is True


def test_runs_are_judged_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def mild(arguments: argparse.Namespace, given: Run) -> Run:
        assert given.hosts[0].evidence is not None
        return replace(given, verdicts=tuple(replace(v, status=P, saw="") for v in given.verdicts))

    assert call(store, "diff", judge_again=mild) == 2
    assert call(store, "diff", "--judge-again", judge_again=mild) == 0
    assert capsys.readouterr().out.endswith("nothing got worse\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["diff", "2027"], "got '2027', expected the id of a run (the newest is 20261124T121500Z-bbbb)"),
        (["diff", HOSTILE], "expected the id of a run"),
        (["runs", "--count", "0"], "argument --count: got '0', expected a number from 1 on"),
        (["diff", "--judge-again"], "unrecognized arguments: --judge-again"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, store: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        call(store, *words)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.code == 4


def test_the_first_run_has_none_before_it(tmp_path: Path) -> None:
    Store(tmp_path).append(OLD)
    with pytest.raises(CommandFailed, match=r"there is no run of a\.yaml before 20261123T121500Z-aaaa: name one"):
        call(tmp_path, "diff")
