"""What the user is told: options, how a job ended, and which jobs there are."""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkhost.base.units import GIB, Mistake, parse_duration, parse_size, show_duration, show_size
from sparkhost.launcher import config as configuration
from sparkhost.launcher import inherit, jobs
from sparkhost.launcher.attach import Ending, parse_end
from sparkhost.launcher.config import BadConfig, Config
from sparkhost.launcher.jobs import Job
from sparkhost.launcher.options import Options, parse
from sparkhost.launcher.report import cause, code_of, summary
from tests.unit.launcher_jobs import HOST

SCRIPT = HOST.parent / "training_slice" / "spark-job-end"


@pytest.mark.parametrize(
    ("text", "count"), [("60G", 60 * GIB), ("60GiB", 60 * GIB), ("1K", 1024), ("512M", 2**29), ("1T", 2**40)]
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text", ["", "G", "0G", "-1G", "1.5G", "60", "60GB", "60g", " 1G", "1G\n", "٣G", "9" * 20 + "G"]
)
def test_what_is_no_size_is_explained(text: str) -> None:
    with pytest.raises(Mistake, match="expected a size such as 60G"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "8", "0h", "8H", "1h30min", "-1s", "99999d", "²h"])
def test_what_is_no_duration_is_explained(text: str) -> None:
    with pytest.raises(Mistake, match="expected a duration"):
        parse_duration(text)


@settings(deadline=None)  # other tests keep the machine busy
@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_mistake(text: str) -> None:
    try:
        assert parse_size(text) > 0
    except Mistake as mistake:
        told = str(mistake)
    else:
        told = ""
    assert "\n" not in told


def test_options_stop_at_the_command() -> None:
    options = parse(["--memory", "60G", "--time=8h", "--name", "x", "--detach", "--", "uv", "run", "--memory", "1G"])
    given = {"memory": 60 * GIB, "time": 8 * 3600, "name": "x", "detach": True}
    assert vars(options) == {**vars(Options()), "argv": ("uv", "run", "--memory", "1G"), **given}
    assert parse(["python", "--detach"]).argv == ("python", "--detach")
    assert parse(["--no-preflight", "x"]).preflight is False
    assert parse(["--env-only", "A,B", "x"]).env_only == ("A", "B")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "a command is missing"),
        (["--"], "a command is missing"),
        (["--memory"], "--memory: a value is missing"),
        (["--memory", "x", "y"], "--memory: got 'x', expected a size"),
        (["--memory", "1M", "y"], "--memory: got '1M', expected 32M at least"),
        (["--name", "a\nb", "y"], "--name: got 'a.nb'"),
        (["--uid=0", "y"], "--uid=0: unknown option"),
        (["-p", "User=root", "y"], "-p: unknown option"),
        (["--detach=1", "y"], "--detach: takes no value"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], text: str) -> None:
    with pytest.raises(Mistake) as caught:
        parse(words)
    assert text.replace(".", "\\") in str(caught.value) or text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_ends_without_a_traceback() -> None:
    code = f"import sys; sys.path.insert(0, {str(HOST)!r}); from sparkhost.launcher.cli import main; sys.exit(main())"
    for words, status in (
        (["--bad"], 2),
        (["ps", "x"], 2),
        (["--help"], 0),
        ([], 2),
        (["stop"], 2),
        (["logs", "no"], 1),
    ):
        result = subprocess.run(
            ["/usr/bin/python3", "-IS", "-c", code, *words], capture_output=True, text=True, check=False
        )
        assert result.returncode == status, (words, result)
        assert "Traceback" not in result.stderr


def test_variables_of_the_session_do_not_reach_the_job() -> None:
    caller = {b"A": b"\xff", b"NOTIFY_SOCKET": b"x", b"SSH_AUTH_SOCK": b"y", b"PATH": b"/bin", b"LC_ALL": b"C"}
    named = dict(inherit.environment_of(caller, detached=False, only=None, ours={"SPARK_JOB_ID": "1"}))
    assert named == {"A": "\udcff", "SSH_AUTH_SOCK": "y", "PATH": "/bin", "LC_ALL": "C", "SPARK_JOB_ID": "1"}
    assert "SSH_AUTH_SOCK" not in dict(inherit.environment_of(caller, detached=True, only=None, ours={}))
    assert dict(inherit.environment_of(caller, detached=False, only=["B"], ours={})) == {"PATH": "/bin", "LC_ALL": "C"}


@pytest.mark.parametrize(
    ("end", "code", "sent", "limit", "words"),
    [
        ("result=oom-kill code=killed status=KILL oom=3 oom_kill=2", 137, [], None, "its memory cap of 1.0 GiB"),
        (
            "result=oom-kill code=killed status=KILL oom=0 oom_kill=1",
            137,
            [],
            None,
            "training.slice, or the whole host",
        ),
        ("result=success code=exited status=1 oom=2 oom_kill=1", 1, [], None, "its memory cap of 1.0 GiB"),
        ("result=timeout code=exited status=143", 143, [], 8 * 3600, "its time limit of 8h 00min"),
        ("result=exit-code code=exited status=130", 130, [signal.SIGINT], None, "ended by you (SIGINT)"),
        ("result=signal code=killed status=KILL", 137, [], None, "a signal from outside"),
        ("result=exit-code code=exited status=143", 143, [], None, "a signal from outside"),
        ("result=exit-code code=exited status=139", 139, [], None, ""),
        ("result=success code=exited status=0 oom= oom_kill=", 0, [], None, ""),
    ],
)
def test_the_cause_is_named(end: str, code: int, sent: list[int], limit: int | None, words: str) -> None:
    ending = Ending(started=True, unit=parse_end(end), sent=[int(number) for number in sent])
    assert code_of(ending) == code
    found = cause(ending, code, GIB, limit, None)
    assert words in found
    assert bool(found) is bool(words)


def test_what_the_stub_said_counts_before_what_the_unit_says() -> None:
    ending = Ending()
    ending.take(marshal.dumps({"started": "abc"}))
    ending.take(marshal.dumps({"ended": 7, "peak": 5}))
    ending.take(b"result=exit-code code=exited status=7 peak=9 oom=0 oom_kill=0\n")
    assert (code_of(ending), ending.started) == (7, True)
    assert summary(ending, 7, 3671, "") == (
        "exit code 7; wall time 1h 01min; peak CPU memory 0 MiB; peak GPU memory unknown"
    )


def test_the_end_script_tells_the_result_and_leaves_it_in_a_file(tmp_path: Path) -> None:
    environment = {"SERVICE_RESULT": "oom-kill", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}
    script = SCRIPT.read_text().replace("/run/sparkfleet/ends", str(tmp_path))
    (tmp_path / "1000").mkdir()
    command = ["sh", "-c", script, "end", "1000", "0123abcd"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    end = parse_end(result.stdout)
    assert (end["result"], end["code"], end["status"]) == ("oom-kill", "killed", "KILL")
    assert parse_end((tmp_path / "1000" / "0123abcd").read_text()) == end
    reading, writing = os.pipe()
    os.close(reading)
    subprocess.run([*command[:-1], "2"], env=environment, stdout=writing, check=True)
    os.close(writing)
    assert (tmp_path / "1000" / "2").exists()


def test_a_note_that_cannot_be_written_is_no_message_of_the_jobs(tmp_path: Path) -> None:
    (tmp_path / "1000" / "0123abcd").mkdir(parents=True)  # in the note's place
    script = SCRIPT.read_text().replace("/run/sparkfleet/ends", str(tmp_path))
    environment = {"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": "0"}
    command = ["sh", "-c", script, "end", "1000", "0123abcd"]
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    assert result.stdout.count("\n") == 1
    assert parse_end(result.stdout)["result"] == "success"


def test_records_are_found_by_id_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(jobs, "ENDS", tmp_path / "ends")
    for number in range(2):
        jobs.record(Job(f"0000000{number}", "same", ["x"], "/", float(number), 1, None, True))
    (tmp_path / "spark-run" / "deadbeef").mkdir()
    assert jobs.chosen("same").id == "00000001"
    assert jobs.chosen("00000000").started == 0
    assert jobs.state_of(jobs.chosen("same")) == "lost"
    (tmp_path / "ends" / str(os.getuid())).mkdir(parents=True)
    (tmp_path / "ends" / str(os.getuid()) / "00000001").write_text("result=oom-kill code=killed status=KILL\n")
    assert jobs.state_of(jobs.chosen("same")) == "out of memory"
    monkeypatch.setattr(jobs, "KEPT", 1)
    jobs.tidy()
    assert [job.id for job in jobs.all_jobs()] == ["00000001"]


def test_the_configuration_is_read_strictly() -> None:
    assert configuration.parse('{"_": "managed", "memlock": null, "need": 5}') == Config(need=5)
    for text in ("", "[]", '{"x": 1}', '{"need": "1"}', '{"need": true}', '{"need": -1}', '{"preflight": "no"}'):
        with pytest.raises(BadConfig, match="deploy again"):
            configuration.parse(text)


@settings(deadline=None)  # other tests keep the machine busy
@given(st.floats(0, 10**7), st.integers(0, 2**60))
def test_what_is_shown_has_a_unit(seconds: float, count: int) -> None:
    assert show_duration(seconds)[-1] in "sn"
    assert show_size(count).endswith("iB")


def test_the_launcher_needs_little_to_start() -> None:
    """What is slow to import stays out of a start."""
    code = (
        f"import sys; sys.path.insert(0, {str(HOST)!r}); from sparkhost.launcher import cli, run; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {
        "argparse",
        "asyncio",
        "logging",
        "subprocess",
        "tempfile",
        "shutil",
        "email",
        "dataclasses",
        "inspect",
    } & set(loaded.split())
