"""The timer: its units are what systemd reads, and it is put in place and taken away without touching other files."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet.audit import schedule, timer
from sparkfleet.cli import Parser
from sparkfleet.exit_codes import CommandFailed

FAKE = """\
#!/bin/sh
# Keeps what systemctl was called with.
echo "$*" >>"$CALLS"
case "$*" in *"$FAILS"*) echo "Failed to connect to bus: No medium found" >&2; exit 1 ;; esac
"""


def call(*words: str) -> int:
    parser = Parser(prog="sparkfleet audit")
    schedule.add_arguments(parser.add_subparsers())
    arguments: argparse.Namespace = parser.parse_args(["schedule", *words])
    return int(arguments.run(arguments))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a fleet file, and a systemctl that notes its calls in `calls`."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "systemctl").write_text(FAKE)
    (tools / "systemctl").chmod(0o755)
    (tmp_path / "calls").touch()
    (tmp_path / "lab.yaml").write_text("hosts: {a: }\n")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAILS", "nothing")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "FLEET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exec_start(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")


def test_the_units_are_printed_and_nothing_is_done(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--fleet", "lab.yaml", "--daily", "06:45") == 0
    out = capsys.readouterr().out
    assert f"# {home}/.config/systemd/user/sparkfleet-audit.service\n" in out
    assert "OnCalendar=*-*-* 06:45:00\n" in out
    assert exec_start(out) == (
        f"{sys.executable} -m sparkfleet.cli audit --fleet {home}/lab.yaml --store {home}/.local/state/sparkfleet/audit"
    )
    assert not (home / ".config").exists()
    assert (home / "calls").read_text() == ""


def test_everything_that_can_be_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "w.yaml").touch()
    tool = home / "told"
    tool.touch(0o755)
    hook = "./told 'echo \"100%\" $HOME'"
    words = ["--local", "--hourly", "--waivers", "w.yaml", "--store", "kept", "--hook", hook, "--system"]
    assert call(*words, "--", "--threshold", "high") == 0
    out = capsys.readouterr().out
    assert exec_start(out) == (
        f"{sys.executable} -m sparkfleet.cli audit @local --waivers {home}/w.yaml --store {home}/kept"
        f' --hook "{home}/told \'echo \\"100%%\\" $$HOME\'" --threshold high'
    )
    assert "OnCalendar=hourly\n" in out
    assert "After=network-online.target\n" in out
    assert "# /etc/systemd/system/sparkfleet-audit.timer\n" in out


def test_the_machine_keeps_its_runs_in_var(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--local", "--system") == 0
    assert "--store /var/lib/sparkfleet/audit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which fleet file? name it with --fleet, set $FLEET, or audit this machine with --local"),
        (["--fleet", "none.yaml"], "none.yaml: there is no such file"),
        (["--local", "--waivers", "none.yaml"], "none.yaml: there is no such file"),
        (["--local", "--hook", "/nonexistent"], "--hook: '/nonexistent' is no program that can be run"),
        (["--local", "--hook", "'"], '--hook: got "\'": No closing quotation'),
        (["--local", "--daily", "6:30"], "argument --daily: got '6:30', expected a time such as 06:30"),
        (["--local", "--daily", "24:00"], "argument --daily: got '24:00', expected a time such as 06:30"),
        (["--local", "--calendar", "a\nb"], "argument --calendar: got 'a\\nb', expected text in one line"),
        (["--local", "--fleet", "lab.yaml"], "argument --fleet: not allowed with argument --local"),
        (["--local", "--daily", "06:30", "--hourly"], "not allowed with argument --daily"),
        (["--print", "--install", "--local"], "not allowed with argument --print"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, home: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        call(*words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == 4


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_a_calendar_that_systemd_does_not_know(home: Path) -> None:
    with pytest.raises(CommandFailed, match=r"--calendar: got 'Mooday', expected an expression such as Mon"):
        call("--local", "--calendar", "Mooday")
    assert call("--local", "--calendar", "Mon,Thu *-*-* 08:00") == 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("system", [True, False])
def test_systemd_reads_the_units(system: bool, tmp_path: Path) -> None:
    words = ["/bin/echo", "a b", "100%", "$HOME", 'q"u\\', "ü", ""]
    for name, text in timer.units(words, "*-*-* 06:30:00", system=system).items():
        (tmp_path / name).write_text(text)
    # The user's manager cannot be had in a container; what it reads is the same.
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        env={**os.environ, "SYSTEMD_LOG_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    about_ours = [line for line in done.stderr.splitlines() if timer.NAME in line]
    assert (done.returncode, about_ours) == (0, [])


def test_it_is_installed_replaced_and_removed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / ".config" / "systemd" / "user"
    assert call("--local", "--install") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["sparkfleet-audit.service", "sparkfleet-audit.timer"]
    assert call("--local", "--hourly", "--install") == 0
    assert "OnCalendar=hourly" in (folder / "sparkfleet-audit.timer").read_text()
    assert "loginctl enable-linger" in capsys.readouterr().out
    assert call("--remove") == 0
    assert list(folder.iterdir()) == []
    calls = (home / "calls").read_text().splitlines()
    start = ["--user daemon-reload", "--user enable sparkfleet-audit.timer", "--user restart sparkfleet-audit.timer"]
    assert calls == [*start, *start, "--user disable --now sparkfleet-audit.timer", "--user daemon-reload"]
    assert call("--remove") == 0
    assert "nothing is scheduled in" in capsys.readouterr().out


def test_files_of_others_are_left_alone(home: Path) -> None:
    folder = home / ".config" / "systemd" / "user"
    folder.mkdir(parents=True)
    own = folder / "sparkfleet-audit.timer"
    own.write_text("[Timer]\nOnCalendar=weekly\n")
    for act in ("--install", "--remove"):
        with pytest.raises(CommandFailed, match="was not written by this command, and is left alone"):
            call("--local", act)
    assert [path.name for path in folder.iterdir()] == [own.name]
    assert own.read_text() == "[Timer]\nOnCalendar=weekly\n"
    assert (home / "calls").read_text() == ""


def test_without_a_session_bus_it_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "daemon-reload")
    with pytest.raises(CommandFailed) as caught:
        call("--local", "--install")
    assert str(caught.value) == "systemctl --user daemon-reload: Failed to connect to bus: No medium found"
    (home / "bin" / "systemctl").unlink()
    monkeypatch.setenv("PATH", str(home / "bin"))
    with pytest.raises(CommandFailed, match="this needs systemd; --print shows what to call from elsewhere"):
        call("--local", "--install")


def test_a_folder_that_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".config").write_text("a file")
    with pytest.raises(CommandFailed, match=r"cannot be (read|changed): Not a directory"):
        call("--local", "--install")
