"""The program that travels to a host: what it answers, and that it needs nothing there but python3."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sparkfleet.host_sources import packed, unpacked
from sparkfleet.settings import HostSettings
from sparkhost.base import converge, files
from sparkhost.base.files import File
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step, from_json, one_line
from tasks.lib import remote

USER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


@dataclass(frozen=True)
class Stubborn(Resource):
    """A resource of the tests that does as told."""

    kind: ClassVar[str] = "test_stubborn"
    refuses: str = ""
    fails: str = ""
    never_settles: bool = False
    warns: str = ""
    breaks: str = ""
    """Where it raises what nobody foresaw: "plan" or "apply"."""
    partly: str = ""
    """A piece of it that fails when it is made; its other piece is made."""
    made: ClassVar[set[str]] = set()

    def steps(self, context: Context) -> Iterator[Step]:
        if self.warns:
            context.warnings.append(self.warns)
        if self.refuses:
            raise Refused(self.refuses)
        if self.breaks == "plan":
            raise RecursionError("too deep")
        for name in ("good", self.partly) if self.partly else ():
            if name not in self.made:
                yield Step(name, "make", partial(self._make, name), alone=True)
        if self.fails or self.never_settles or self.breaks:
            yield Step("x", "change x", self._change)

    def _change(self) -> None:
        if self.fails:
            raise Failed(self.fails)
        if self.breaks:
            raise TypeError("'NoneType' object\nis not iterable")

    def _make(self, name: str) -> None:
        if name == self.partly:
            raise KeyError("x")
        self.made.add(name)


@pytest.fixture(autouse=True)
def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BACKUPS", tmp_path / "backup")


def file(path: Path, content: str = "managed by sparkfleet\n") -> dict[str, Any]:
    return File(str(path), content, 0o644, USER, GROUP).to_json()


def request(action: str, **measures: list[dict[str, Any]]) -> dict[str, Any]:
    return {"action": action, "modules": [], "measures": [{"name": n, "resources": r} for n, r in measures.items()]}


def test_a_plan_changes_nothing_and_shows_the_diff(tmp_path: Path) -> None:
    answer = converge.run(request("plan", one=[file(tmp_path / "a")], two=[]))
    assert not (tmp_path / "a").exists()
    (change,) = answer["plan"]["one"]["changes"]
    assert (change["what"], change["summary"]) == (str(tmp_path / "a"), "create")
    assert "+managed by sparkfleet" in change["diff"]
    assert answer["plan"]["two"] == {"changes": [], "warnings": [], "refused": [], "error": None}


def test_apply_does_the_first_measure_and_plans_the_rest(tmp_path: Path) -> None:
    answer = converge.run(request("apply", one=[file(tmp_path / "a")], two=[file(tmp_path / "b")]))
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    assert [c["what"] for c in answer["applied"]["changes"]] == [str(tmp_path / "a")]
    assert list(answer["plan"]) == ["two"]
    again = converge.run(request("apply", one=[file(tmp_path / "a")]))
    assert again["applied"]["changes"] == []


def test_a_plan_may_end_where_there_is_something_to_do(tmp_path: Path) -> None:
    """What comes after a change is looked at again anyway when it is made; a refusal changes nothing."""
    there = file(tmp_path / "there")
    converge.run(request("apply", one=[there]))
    refused = Stubborn(refuses="not now").to_json()
    measures = {"same": [there], "refused": [refused], "new": [file(tmp_path / "new")], "after": [there]}
    asked = request("plan", **measures)
    assert list(converge.run(asked)["plan"]) == ["same", "refused", "new", "after"]
    assert list(converge.run({**asked, "until_change": True})["plan"]) == ["same", "refused", "new"]
    asked = request("apply", first=[], **measures)
    assert list(converge.run({**asked, "until_change": True})["plan"]) == ["same", "refused", "new"]


def test_a_refusal_does_not_stop_the_measure_and_a_failure_does(tmp_path: Path) -> None:
    refused = Stubborn(refuses="not now").to_json()
    answer = converge.run(request("apply", one=[refused, file(tmp_path / "a")]))
    assert answer["applied"]["refused"] == ["not now"]
    assert (tmp_path / "a").exists()
    failed = Stubborn(fails="broken\nin two lines").to_json()
    answer = converge.run(request("apply", one=[failed, file(tmp_path / "b")]))
    assert answer["applied"]["error"] == "broken in two lines"
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("phase", ["plan", "apply"])
def test_what_nobody_foresaw_costs_its_measure_alone(tmp_path: Path, phase: str) -> None:
    broken = Stubborn(breaks=phase).to_json()
    answer = converge.run(request("apply", one=[broken, file(tmp_path / "a")], two=[file(tmp_path / "b")]))
    error = answer["applied"]["error"]
    assert error.startswith("a mistake of ours: ")
    assert "test_converge:" in error
    assert "\n" not in error
    assert "test_converge:" in answer["applied"]["traceback"]
    assert len(answer["applied"]["traceback"]) <= 4096
    assert not (tmp_path / "a").exists(), "what follows in the measure may rest on it"
    assert [change["what"] for change in answer["plan"]["two"]["changes"]] == [str(tmp_path / "b")]


def test_what_nobody_foresaw_in_a_plan_hides_no_other_measure(tmp_path: Path) -> None:
    broken = Stubborn(breaks="plan").to_json()
    plan = converge.run(request("plan", one=[broken], two=[file(tmp_path / "b")]))["plan"]
    assert plan["one"]["error"].startswith("a mistake of ours: RecursionError: too deep")
    assert len(plan["two"]["changes"]) == 1
    assert "traceback" not in plan["two"]


def test_a_piece_that_fails_hides_no_other_piece_and_ends_no_measure(tmp_path: Path) -> None:
    partly = Stubborn(partly="bad").to_json()
    answer = converge.run(request("apply", one=[partly, file(tmp_path / "a")]))
    assert [change["what"] for change in answer["applied"]["changes"]] == ["good", str(tmp_path / "a")]
    assert answer["applied"]["error"].startswith("bad: a mistake of ours: KeyError: 'x'")
    assert (tmp_path / "a").exists()


def test_a_request_that_makes_no_sense_is_one_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert converge.main({"action": "plan", "modules": [], "measures": [{"name": "x", "resources": [7]}]}) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith("sparkhost: a mistake of ours: TypeError")


def test_warnings_are_told_with_the_measure_and_stop_nothing(tmp_path: Path) -> None:
    careful = Stubborn(warns="little memory").to_json()
    answer = converge.run(request("apply", one=[careful, file(tmp_path / "a")], two=[careful], three=[]))
    assert answer["applied"]["warnings"] == ["little memory"]
    assert (tmp_path / "a").exists()
    assert {name: plan["warnings"] for name, plan in answer["plan"].items()} == {"two": ["little memory"], "three": []}


def test_a_change_that_does_not_settle_is_a_failure() -> None:
    answer = converge.run(request("apply", one=[Stubborn(never_settles=True).to_json()]))
    assert answer["applied"]["error"] == "x: still differs after the change: change x"


def test_a_full_disk_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    error = OSError(28, "No space left on device", str(tmp_path / "x"))
    assert one_line(error) == f"No space left on device ({tmp_path}/x); free some space there and deploy again"


def test_resources_survive_the_journey() -> None:
    original = File("/etc/x", "ä\0\n", 0o600)
    assert from_json(json.loads(json.dumps(original.to_json()))) == original
    with pytest.raises(Failed, match="unknown kind of resource: 'nonsense'"):
        from_json({"kind": "nonsense"})


def test_every_resource_of_every_measure_can_be_imported_on_a_host(tmp_path: Path) -> None:
    """Also those that are in a package of their measure: Python asks for the package first."""
    for path in (Path(__file__).resolve().parents[2] / "tasks").glob("*.py"):
        import_module(f"tasks.{path.stem}")
    for module in sorted({kind.__module__ for kind in Resource.KINDS.values() if "sparkhost" in kind.__module__}):
        request = {**unpacked(remote.request("plan", [])), "modules": [module]}
        request["sources"] = remote.sources(frozenset({module}))
        result = subprocess.run(
            ["sh", "-c", remote.COMMAND],
            input=packed(request),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
            check=False,
        )
        assert result.returncode == 0, f"{module}: {result.stderr}"


def test_the_loader_runs_on_a_python_that_knows_nothing_of_us(tmp_path: Path) -> None:
    """As on a host: another directory, no environment, sources on stdin only."""
    sent = remote.request("apply", [{"name": "one", "resources": [file(tmp_path / "a")]}])
    wanted = unpacked(sent)
    assert len(sent) < len(json.dumps(wanted)) / 2
    assert "sparkhost.swap.swap" not in wanted["sources"], "modules that nothing here needs stay at home"
    result = subprocess.run(
        ["sh", "-c", remote.COMMAND],
        input=sent,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": "/nonexistent", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["applied"]["error"] is None
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("name", sorted(HostSettings.model_fields))
def test_what_a_measure_needs_travels_with_it(name: str) -> None:
    """Its modules alone, on a Python that knows nothing of us: each is imported, and nothing is looked at."""
    settings = getattr(HostSettings(), name)
    measure = import_module(f"tasks.{name}")
    resources = [one.to_json() for one in (*measure.apply(settings), *measure.remove(settings))]
    wanted = unpacked(remote.request("plan", [{"name": name, "resources": resources}]))
    result = subprocess.run(
        ["sh", "-c", remote.COMMAND],
        input=packed({**wanted, "measures": []}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["plan"] == {}


def test_a_bad_request_is_one_line_on_stderr(tmp_path: Path) -> None:
    bad = remote.request("plan", [{"name": "one", "resources": [{"kind": "nonsense"}]}])
    result = subprocess.run(["sh", "-c", remote.COMMAND], input=bad, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "sparkhost: unknown kind of resource: 'nonsense'\n"
