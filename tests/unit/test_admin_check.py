"""`sparkfleet check`: every first mistake is a line with the next step, here and on hosts (tests/doubles/sshd.py)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import paramiko
import pytest

from sparkfleet.cli import main
from tests.doubles import sshd

ROOT = Path(__file__).resolve().parents[2]
SPARK = {
    "user": "admin",
    "uid": "1000",
    "arch": "aarch64",
    "kernel": "6.11",
    "os": "Ubuntu 24.04.3 LTS",
    "python": "3.12.3",
    "sudo": "free",
    "gpu": "NVIDIA GB10",
    "end": ".",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FLEET", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def host(**differs: str) -> sshd.Command:
    """A host whose probe says so."""
    return sshd.says("".join(f"sparkfleet: {key} {value}\n" for key, value in {**SPARK, **differs}.items()))


def checked(folder: Path, command: sshd.Command, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with sshd.serving(command) as port:
        code = main(["check", "--fleet", str(sshd.fleet_of(folder, {"one": port}))])
    return code, capsys.readouterr().out


def without(*programs: str, folder: Path) -> sshd.Command:
    """A host that runs the real probe with a shell of this machine, and lacks these programs."""
    (folder / "bin").mkdir()
    for program in Path("/usr/bin").iterdir():
        if not program.name.startswith(programs):
            (folder / "bin" / program.name).symlink_to(program)

    def command(line: str, text: str, channel: paramiko.Channel) -> None:
        environment = {"PATH": str(folder / "bin"), "HOME": str(folder)}
        done = subprocess.run(
            ["/bin/sh", "-c", line], input=text, capture_output=True, text=True, env=environment, check=False
        )
        sshd.answer(channel, done.stdout, done.returncode, done.stderr)

    return command


def test_a_spark_lacks_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = checked(home, host(), capsys)
    assert code == 0, said
    assert "\n  - " not in said
    assert "  + Python 3.12.3; sudo: without a password\n" in said


def test_without_a_fleet_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 4
    assert "  - no fleet file: `sparkfleet init my-lab` writes one" in capsys.readouterr().out
    assert main(["drift"]) == 4
    assert "`sparkfleet init my-lab` writes one" in capsys.readouterr().err


def test_a_fleet_file_with_mistakes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "fleet.yaml").write_text("hosts: {one: {adress: x}}\n")
    assert main(["check", "--fleet", "fleet.yaml"]) == 4
    assert "  - fleet.yaml:1: hosts.one.adress: unknown key, did you mean address?\n" in capsys.readouterr().out


def test_the_labs_file_without_a_lab(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "inventories").mkdir()
    (home / "inventories" / "lab.yaml").write_text((ROOT / "inventories" / "lab.yaml").read_text())
    assert main(["check", "--here", "--fleet", "inventories/lab.yaml"]) == 4
    assert "the lab is not up: `make demo`" in capsys.readouterr().out


def test_no_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sshd.serving(host()) as port:
        path = sshd.fleet_of(home, {"one": port})
        (home / "key").unlink()
        assert main(["check", "--here", "--fleet", str(path)]) == 4
    assert f"ssh-keygen -t ed25519 -f {home}/key, and `sparkfleet enrol one` installs it" in capsys.readouterr().out


def test_a_key_that_others_can_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sshd.fleet_of(home, {"one": 1})
    (home / "key").chmod(0o644)
    assert main(["check", "--here", "--fleet", str(path)]) == 4
    assert f"chmod 600 {home}/key" in capsys.readouterr().out


def test_an_unknown_host_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sshd.serving(host()) as port:
        path = sshd.fleet_of(home, {"one": port}, unknown=["one"])
        assert main(["check", "--fleet", str(path)]) == 3
    assert "`sparkfleet enrol one` shows it, and pins it\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lacks", "says"),
    [("sudo", "  - there is no sudo: as root, apt install sudo"), ("python", "  - python3 is missing")],
)
def test_a_host_without(home: Path, capsys: pytest.CaptureFixture[str], lacks: str, says: str) -> None:
    has = "python3" if lacks == "sudo" else "sudo"
    command = without(lacks, folder=home)
    for name, text in ((has, "echo 3.12.1"), ("id", '[ "$1" = -u ] && echo 1000 || echo admin')):
        tool = home / "bin" / name
        tool.unlink(missing_ok=True)  # a link to the machine's own
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
    code, said = checked(home, command, capsys)
    assert code == 1, said
    assert says in said


@pytest.mark.parametrize(
    ("differs", "says"),
    [
        ({"gpu": "NVIDIA H100"}, "  ! no DGX Spark by its GPU and architecture"),
        ({"arch": "x86_64"}, "  ! no DGX Spark by its GPU and architecture"),
        ({"os": "Fedora Linux 41"}, "  ! Fedora Linux 41: not one of Ubuntu 24.04"),
        ({"os": "\x1b[2J"}, "  ! \\x1b[2J: not one of"),
    ],
)
def test_what_may_be_meant_so_is_a_warning(
    home: Path, capsys: pytest.CaptureFixture[str], differs: dict[str, str], says: str
) -> None:
    code, said = checked(home, host(**differs), capsys)
    assert code == 0
    assert says in said


@pytest.mark.parametrize(
    ("said", "code", "line"),
    [
        ("uv 0.3.5", 4, "  - uv 0.3.5 is too old for a site's project, 0.4.27 or later is needed: uv self update"),
        ("uv 0.9.1 (abc 2025-10-01)", 0, "  + uv 0.9.1"),
        ("what?", 0, "  ! uv does not say its version"),
    ],
)
def test_an_old_uv(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
    code: int,
    line: str,
) -> None:
    (home / "tools").mkdir()
    (home / "tools" / "uv").write_text(f"#!/bin/sh\necho '{said}'\n")
    (home / "tools" / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'tools'}:{os.environ['PATH']}")
    assert main(["check", "--here", "--fleet", str(sshd.fleet_of(home, {"one": 1}))]) == code
    assert line in capsys.readouterr().out
