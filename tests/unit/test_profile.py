"""spark-profile for real, on the CPU: with the recipe that allocates by its batch."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkhost.base.deploylock import start_of
from sparkhost.base.units import GIB, MIB, Mistake
from sparkhost.tools.profile import command, fit, plot, recipe
from sparkhost.tools.profile.cli import main
from sparkhost.tools.profile.fit import Line, Point
from sparkhost.tools.profile.sample import Memory
from sparkhost.tools.profile.step import Limits, run, wrapped
from tests.unit.watchdog_host import until

RECIPES = Path(__file__).resolve().parents[2] / "files" / "tools" / "recipes"
ALLOCATE = str(RECIPES / "allocate.toml")
PLAIN = ["--plain", "--by", "processes", "--headroom", "512M", "--rate", "100"]


def results(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "results.json").read_text())
    assert isinstance(found, dict)
    return found


def statuses(directory: Path) -> dict[int, str]:
    return {step["value"]: step["status"] for step in results(directory)["steps"]}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series of three real runs: 64 MiB by sample, and a base."""
    out = tmp_path_factory.mktemp("series")
    words = ["--recipe", ALLOCATE, "--vary", "batch=1,2,4", "--set", "mib=64", "--out", str(out), "--total-batch", "12"]
    assert main([*PLAIN, *words]) == 0
    return out


def test_the_peaks_are_those_of_the_program(profiled: Path) -> None:
    """It holds 32 MiB and 64 MiB by sample for a fifth of a second, beside the interpreter."""
    steps = results(profiled)["steps"]
    for step in steps:
        held = (32 + 64 * step["value"]) * MIB
        assert held <= step["peak"] <= held + 48 * MIB
    line = results(profiled)["summary"]["line"]
    assert line["slope"] == pytest.approx(64 * MIB, rel=0.05)
    assert line["r2"] > 0.99


def test_the_largest_measured_batch_is_recommended_with_its_accumulation(profiled: Path) -> None:
    summary = results(profiled)["summary"]
    assert summary["recommended"] == 4
    assert summary["accumulation"] == [4, 3]


def test_table_and_picture_say_the_same(profiled: Path) -> None:
    with (profiled / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(int(row["batch"]), int(row["peak"])) for row in rows] == [
        (step["value"], step["peak"]) for step in results(profiled)["steps"]
    ]
    circles = list(xml.parse(profiled / "plot.svg").iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 3


def test_a_series_goes_on_where_it_stopped(profiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (profiled / "batch-4.log").stat().st_mtime_ns
    words = ["--recipe", ALLOCATE, "--set", "mib=64", "--out", str(profiled)]
    assert main([*PLAIN, *words, "--vary", "batch=1,2,4,6"]) == 0
    assert (profiled / "batch-4.log").stat().st_mtime_ns == before
    assert statuses(profiled) == {1: "ok", 2: "ok", 4: "ok", 6: "ok"}
    assert "batch=4: known" in capsys.readouterr().err


def test_another_command_does_not_mix_with_it(profiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAIN, "--recipe", ALLOCATE, "--set", "mib=65", "--out", str(profiled)]) == 2
    assert "is of another command or other settings" in capsys.readouterr().err


def test_it_stops_before_a_batch_that_would_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The third batch would need 64 TiB: it is never started."""
    words = ["--vary", f"batch=1,2,{2**20}", "--recipe", ALLOCATE, "--set", "mib=64", "--out", str(tmp_path)]
    assert main([*PLAIN, *words]) == 0
    assert statuses(tmp_path) == {1: "ok", 2: "ok"}
    assert not (tmp_path / f"batch-{2**20}.log").exists()
    assert "not tried" in capsys.readouterr().out


def test_a_run_that_takes_more_than_the_headroom_is_ended(tmp_path: Path) -> None:
    """The floor lies just below what is available now; the program would go on to take 2 GiB."""
    memory = Memory()
    floor = memory.read("MemAvailable") - 512 * MIB
    code = "import time\nheld = []\nfor n in range(32):\n held.append(bytearray(b'x' * 2**26))\n time.sleep(0.05)"
    outcome = run([sys.executable, "-c", code], tmp_path / "log", Limits(floor, 60, 100), memory)
    memory.close()
    assert outcome.status == "stopped"
    assert outcome.peaks.processes < 2 * GIB


def test_a_run_that_ignores_sigterm_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparkhost.tools.profile import step

    monkeypatch.setattr(step, "TERM_TO_KILL", 0.5)
    code = "trap '' TERM; (trap '' TERM; sleep 600) & echo $! >child; wait; wait; sleep 600"
    memory = Memory()
    outcome = run(["sh", "-c", f"cd {tmp_path}; {code}"], tmp_path / "log", Limits(0, 0.5, 50), memory)
    memory.close()
    assert (outcome.status, outcome.code) == ("timeout", 137)
    child = int((tmp_path / "child").read_text())
    until(lambda: start_of(child) is None)  # SIGKILL is sent, and not waited for


def test_a_failure_is_explained_by_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "echo 'ImportError: libcudart.so.12: cannot open shared object file'; exit 3 # {batch}"
    assert main([*PLAIN, "--out", str(tmp_path), "--", "sh", "-c", script]) == 1
    out = capsys.readouterr().out
    assert "batch=1: failed with exit code 3: something was built for CUDA 12" in out
    assert statuses(tmp_path) == {1: "failed"}


def test_what_did_not_end_well_is_tried_again_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"test -e {tmp_path}/good || exit 3 # {{batch}}"
    words = [*PLAIN, "--vary", "batch=1,2", "--out", str(tmp_path)]
    assert main([*words, "--", "sh", "-c", script]) == 1
    (tmp_path / "good").touch()
    assert main([*words, "--", "sh", "-c", script]) == 1
    assert "--again tries it once more" in capsys.readouterr().out
    assert main([*words, "--again", "--", "sh", "-c", script]) == 0
    assert statuses(tmp_path) == {1: "ok", 2: "ok"}


def test_a_value_during_which_the_host_froze_is_not_tried_again(
    profiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The note that is on disk before a step starts is all that is left of it."""
    document = results(profiled)
    document["steps"] = [{"value": 1, "status": "unfinished", "peak": 0, "code": 0, "peaks": None}]
    (tmp_path / "results.json").write_text(json.dumps(document))
    words = ["--recipe", ALLOCATE, "--set", "mib=64", "--out", str(tmp_path), "--vary", "batch=1"]
    assert main([*PLAIN, *words]) == 1
    assert "ended with the host, or was cut short before" in capsys.readouterr().out


def test_the_note_is_there_while_a_step_runs(tmp_path: Path) -> None:
    """The command itself reads what is on disk."""
    script = "cp results.json seen.json # {batch}"
    words = [*PLAIN, "--vary", "batch=1", "--out", str(tmp_path)]
    assert main([*words, "--", "sh", "-c", f"cd {tmp_path}; {script}"]) == 0
    assert json.loads((tmp_path / "seen.json").read_text())["steps"][0]["status"] == "unfinished"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "expected --recipe NAME or -- COMMAND"),
        (["--recipe", "x", "--", "true"], "expected --recipe NAME or -- COMMAND"),
        (["--recipe", "/none.toml"], "--recipe: /none.toml: No such file or directory"),
        (["--", "true"], "the command has no {batch}"),
        (["--set", "length=1", "--", "true", "{batch}"], "the command has no {length}"),
        (["--set", "batch=1", "--", "true", "{batch}"], "--set: batch is varied"),
        (["--set", "=1", "--", "true", "{batch}"], "--set: got '=1', expected NAME=VALUE"),
        (["--vary", "batch", "--", "true", "{batch}"], "--vary: got 'batch', expected batch=1:64"),
        (["--headroom", "20", "--", "true", "{batch}"], "--headroom: got '20', expected a size"),
        (["--headroom", "900T", "--", "true", "{batch}"], "there is no room for a run"),
        (["--time", "1", "--", "true", "{batch}"], "--time: got '1', expected a duration"),
        (["--plain", "--", "/nonexistent", "{batch}"], "/nonexistent: No such file or directory"),
        (["--plain", "--", "python3 tiny.py {batch}"], "'python3 tiny.py {batch}' is one word with blanks"),
        (["--", "true", "{batch}"], "spark-run: No such file or directory; --plain runs the command without it"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "--headroom" not in words:
        words = ["--headroom", "512M", *words]
    assert main(["--out", str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_command_that_never_started_is_tried_again(tmp_path: Path) -> None:
    """Nor does it take the place of what was known of the value."""
    program = tmp_path / "program"
    words = [*PLAIN, "--vary", "batch=1", "--out", str(tmp_path / "out"), "--", str(program), "{batch}"]
    assert main(words) == 2
    assert statuses(tmp_path / "out") == {}
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    assert main(words) == 1
    assert statuses(tmp_path / "out") == {1: "failed"}
    program.unlink()
    assert main(["--again", *words]) == 2
    assert statuses(tmp_path / "out") == {1: "failed"}


def test_variables_of_a_recipe_reach_its_command_and_yours_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.toml").write_text(
        'command = ["sh", "-c", "echo $HERE $YOURS # {batch} {where}"]\nvary = "batch=1"\nset = {where = "place"}\n'
        'environment = {HERE = "{where}/x", YOURS = "recipe"}\n'
    )
    monkeypatch.setenv("YOURS", "user")
    assert main([*PLAIN, "--recipe", str(tmp_path / "r.toml"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "batch-1.log").read_text() == "place/x user\n"


def test_the_allocator_of_a_job_is_left_to_spark_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows the job's share; a variable that is set already would keep it from saying so."""
    launcher = tmp_path / "spark-run"
    launcher.write_text('#!/bin/sh\necho "${PYTORCH_CUDA_ALLOC_CONF-unset}"\n')
    launcher.chmod(0o755)
    (tmp_path / "r.toml").write_text(
        'command = ["true", "{batch}"]\nvary = "batch=1"\n'
        'environment = {PYTORCH_CUDA_ALLOC_CONF = "expandable_segments:True"}\n'
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    words = ["--by", "processes", "--headroom", "512M", "--recipe", str(tmp_path / "r.toml"), "--out", str(tmp_path)]
    assert main(words) == 0
    assert (tmp_path / "batch-1.log").read_text() == "unset\n"


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text("{}")
    assert main([*PLAIN, "--out", str(tmp_path), "--", "true", "{batch}"]) == 2
    assert "is no result of spark-profile" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "{}"


@pytest.mark.parametrize(
    "text", ["", "batch", "batch=", "batch=0:4", "batch=4,2", "batch=1,1", "Batch=1", "b=1:x", "b=1:2:3"]
)
def test_values_that_do_not_rise_are_refused(text: str) -> None:
    with pytest.raises(Mistake, match="expected batch=1:64"):
        command.parse_vary(text)


def test_values_double_up_to_the_last() -> None:
    assert command.parse_vary("batch=1:20") == ("batch", [1, 2, 4, 8, 16])
    assert command.parse_vary("length=1024:1024") == ("length", [1024])


def test_other_braces_and_values_with_braces_stay() -> None:
    words = ["--x={a}", '{"b": 1}', "{a}{b}"]
    assert command.fill(words, {"a": "{b}", "b": "2"}) == ["--x={b}", '{"b": 1}', "{b}2"]


def test_a_step_is_a_job_of_the_launcher() -> None:
    assert wrapped(["train", "--", "x"], "n", "60G") == [
        "spark-run", "--quiet", "--no-preflight", "--name", "n", "--memory", "60G", "--", "train", "--", "x",
    ]  # fmt: skip


@given(st.floats(0, 50), st.floats(0.01, 10), st.sets(st.integers(1, 512), min_size=2, max_size=8))
def test_a_line_is_found_again(base: float, slope: float, values: set[int]) -> None:
    points = [Point(value, int((base + slope * value) * GIB)) for value in values]
    found = fit.line(points)
    assert found is not None
    assert found.at(7) / GIB == pytest.approx(base + slope * 7, rel=1e-6, abs=1e-6)


@given(st.integers(1, 8), st.lists(st.integers(1, 10**12), min_size=1, max_size=6), st.integers(2, 5))
def test_a_larger_batch_is_never_expected_to_need_less(first: int, peaks: list[int], factor: int) -> None:
    points = [Point(first * 2**number, peak) for number, peak in enumerate(peaks)]
    expected = fit.expect(points, points[-1].value * factor)
    assert expected is not None
    assert expected >= points[-1].peak


def test_a_bend_upwards_is_expected_to_go_on() -> None:
    """The published peaks of DPO on a Spark: 24, 27, 62 GiB at batch 2, 4, 8. The next one is not tried."""
    points = [Point(2, 24 * GIB), Point(4, 27 * GIB), Point(8, 62 * GIB)]
    assert fit.expect(points, 16) == 132 * GIB
    straight = [Point(2, 21 * GIB), Point(4, 29 * GIB), Point(8, 47 * GIB)]
    assert fit.expect(straight, 16) == pytest.approx(81 * GIB, rel=0.03)


def test_the_reach_leaves_room_for_the_worst_point() -> None:
    points = [Point(1, 2 * GIB), Point(2, 3 * GIB), Point(4, 5 * GIB)]
    assert fit.reach(points, 8 * GIB) == 7
    assert fit.reach(points, 1 * GIB) is None
    assert fit.reach([Point(1, 5), Point(2, 5)], 8 * GIB) is None


@given(st.integers(1, 64), st.integers(1, 512))
def test_batch_and_accumulation_make_the_total(batch: int, total: int) -> None:
    size, steps = fit.accumulation(batch, total)
    assert size * steps == total
    assert size <= batch


@given(
    st.lists(st.builds(Point, st.integers(1, 2**20), st.integers(0, 2**40)), max_size=6),
    st.integers(0, 2**40),
    st.integers(0, 2**41),
)
def test_all_of_the_picture_is_in_the_frame(points: list[Point], room: int, more: int) -> None:
    others = {"in use": [Point(point.value, more) for point in points]} if points else {}
    picture = xml.fromstring(plot.svg(points, fit.line(points), room, "batch", "title", others))
    for element in picture.iter():
        for name, most in (("cx", plot.WIDTH), ("cy", plot.HEIGHT), ("x", plot.WIDTH), ("y", plot.HEIGHT)):
            assert 0 <= float(element.get(name, "0")) <= most
        for pair in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", element.get("d", "")):
            assert 0 <= float(pair[0]) <= plot.WIDTH
            assert 0 <= float(pair[1]) <= plot.HEIGHT


def test_the_picture_is_valid_whatever_the_title(tmp_path: Path) -> None:
    path = tmp_path / "p.svg"
    path.write_text(plot.svg([], Line(0, 0, 0, 1), GIB, "<batch>", 'a & "b"'))
    assert xml.parse(path).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("command = 1", "command: expected a list of words"),
        ('command = ["x"]\nmore = 1', "more: unknown key"),
        ('command = ["x"]\nset = 1', "set: expected a table"),
        ("command =", "is no TOML"),
    ],
)
def test_a_recipe_that_is_wrong_is_one_line(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "r.toml").write_text(content)
    with pytest.raises(Mistake) as refused:
        recipe.read("r", tmp_path)
    assert says in str(refused.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_ends_the_profile_ends_the_run_with_it(tmp_path: Path, number: int) -> None:
    """The run tells its number, and waits for ever; nobody else is let into the directory meanwhile."""
    script = f"echo $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600 # {{batch}}"
    code = "import sys; from sparkhost.tools.profile.cli import main; sys.exit(main())"
    words = [*PLAIN, "--out", str(tmp_path), "--", "sh", "-c", script]
    started = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=RECIPES.parents[1] / "host",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert main(words) == 2
        started.send_signal(number)
        out, _ = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 130
    assert "called again, it goes on" in out
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
    assert statuses(tmp_path) == {}


TORCH = """
import sys
class cuda:
    is_initialized = staticmethod(lambda: {used})
    max_memory_allocated = staticmethod(lambda: {in_use})
    max_memory_reserved = staticmethod(lambda: {reserved})
"""
"""A double of PyTorch, at the interface that is asked."""


def told(tmp_path: Path, torch: str, *words: str) -> dict[str, Any]:
    """The only step's peaks of a run that imports the double."""
    (tmp_path / "torch.py").write_text(torch)
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import torch; {{batch}}"
    assert (
        main([*PLAIN, "--vary", "batch=1", "--out", str(tmp_path / "o"), *words, "--", sys.executable, "-c", code]) == 0
    )
    peaks: dict[str, Any] = results(tmp_path / "o")["steps"][0]["peaks"]
    return peaks


def test_pytorch_is_asked_what_was_in_use_and_reserved(tmp_path: Path) -> None:
    peaks = told(tmp_path, TORCH.format(used=True, in_use=3 * GIB, reserved=4 * GIB), "--torch")
    assert (peaks["in_use"], peaks["reserved"]) == (3 * GIB, 4 * GIB)
    picture = (tmp_path / "o" / "plot.svg").read_text()
    assert "reserved by PyTorch, 1: 4.00 GiB" in picture
    assert "in use, 1: 3.00 GiB" in picture
    with (tmp_path / "o" / "results.csv").open() as stream:
        assert next(csv.DictReader(stream))["reserved"] == str(4 * GIB)


def test_without_being_asked_or_without_a_gpu_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(tmp_path, TORCH.format(used=True, in_use=1, reserved=2))["in_use"] is None
    assert told(tmp_path, TORCH.format(used=False, in_use=1, reserved=2), "--torch", "--anew")["reserved"] is None
    assert "no figures of it" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["raise RuntimeError('gone')", "return 'many'"])
def test_a_pytorch_that_fails_at_its_end_does_not_fail_the_step(tmp_path: Path, broken: str) -> None:
    double = f"class cuda:\n @staticmethod\n def is_initialized():\n  {broken}\n"
    double += " max_memory_allocated = max_memory_reserved = staticmethod(lambda: 'many')\n"
    assert told(tmp_path, double, "--torch")["in_use"] is None


def test_the_users_own_sitecustomize_still_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "own"))
    told(tmp_path, TORCH.format(used=True, in_use=1, reserved=2), "--torch")
    assert (tmp_path / "ran").exists()


def test_results_from_before_pytorch_was_asked_are_read(profiled: Path, tmp_path: Path) -> None:
    document = results(profiled)
    for step in document["steps"]:
        del step["peaks"]["in_use"], step["peaks"]["reserved"]
    (tmp_path / "results.json").write_text(json.dumps(document))
    words = ["--recipe", ALLOCATE, "--set", "mib=64", "--out", str(tmp_path), "--vary", "batch=1,2"]
    assert main([*PLAIN, *words]) == 0
