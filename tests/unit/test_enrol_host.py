"""The scripts that run on hosts, run here with sh, and what is made of their answers."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparkfleet.enrol import preview, probe, ssh
from sparkfleet.enrol.probe import Seen
from sparkfleet.enrol.ssh import Answer, Route
from sparkfleet.exit_codes import CommandFailed, ExitCode

SCRIPTS = Path(ssh.__file__).with_name("host")
KEY = "ssh-ed25519 AAAAC3Nz+/= me@here"
SHELLS = [path for name in ("sh", "dash", "bash", "zsh", "csh", "tcsh", "fish", "ksh") if (path := shutil.which(name))]


@dataclass(frozen=True)
class Here(Route):
    """A route to a login shell on this machine."""

    shell: str = "sh"

    def words(self) -> list[str]:
        return [self.shell, "-c"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def install(shell: str = "sh") -> set[str]:
    answer = Here("here", "here", shell=shell).script("install_key.sh", f"{KEY}\n", person=True)
    assert answer.rc == 0, answer.stderr
    return set(probe.values_of(answer.stdout))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_key_is_installed_once_whatever_the_shell(home: Path, shell: str) -> None:
    assert install(shell) == {"installed"}
    assert install(shell) == {"present"}
    assert (home / ".ssh" / "authorized_keys").read_text() == f"{KEY}\n"
    assert (mode(home / ".ssh"), mode(home / ".ssh" / "authorized_keys")) == (0o700, 0o600)
    assert [path.name for path in (home / ".ssh").iterdir()] == ["authorized_keys"]


@pytest.mark.parametrize("before", [b"", b"# \xff me\r\nssh-rsa AAAA other\n\n", b"ssh-rsa AAAA no newline"])
def test_what_is_there_stays_byte_for_byte(home: Path, before: bytes) -> None:
    (home / ".ssh").mkdir(mode=0o755)
    path = home / ".ssh" / "authorized_keys"
    path.write_bytes(before)
    path.chmod(0o664)
    assert install() == {"installed"}
    after = path.read_bytes()
    assert after.startswith(before)
    assert after.removeprefix(before) in (f"{KEY}\n".encode(), f"\n{KEY}\n".encode())
    assert (mode(home / ".ssh"), mode(path)) == (0o755, 0o644), "only what sshd would refuse is taken away"


@pytest.mark.parametrize(
    ("before", "found"),
    [
        (f'from="10.0.0.0/8",no-pty {KEY}\n', "present"),
        ("ssh-ed25519 AAAAC3Nz+/= another comment\n", "present"),
        (f"# {KEY}\n", "installed"),
        ("ssh-ed25519 AAAAC3Nz+/=longer me\n", "installed"),
    ],
)
def test_the_same_key_is_not_added_again(home: Path, before: str, found: str) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "authorized_keys").write_text(before)
    assert install() == {found}


def test_a_link_stays_a_link(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / "dotfiles").mkdir()
    (home / ".ssh" / "authorized_keys").symlink_to(home / "dotfiles" / "keys")
    assert install() == {"installed"}
    assert (home / ".ssh" / "authorized_keys").is_symlink()
    assert (home / "dotfiles" / "keys").read_text() == f"{KEY}\n"


def test_a_home_that_others_can_write_is_told(home: Path) -> None:
    home.chmod(0o775)
    assert "open-home" in install()


def test_a_failure_leaves_the_file_and_nothing_else(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "authorized_keys").write_text("ssh-rsa AAAA\n")
    tools = home / "tools"
    tools.mkdir()
    (tools / "mv").write_text("#!/bin/sh\necho mv: no space left >&2\nexit 1\n")
    (tools / "mv").chmod(0o755)
    words = ["sh", str(SCRIPTS / "install_key.sh")]
    path = f"{tools}:{os.environ['PATH']}"
    done = subprocess.run(
        words, input=f"{KEY}\n", env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "mv: no space left\n")
    assert sorted(item.name for item in (home / ".ssh").iterdir()) == ["authorized_keys"]
    assert (home / ".ssh" / "authorized_keys").read_text() == "ssh-rsa AAAA\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_probe_answers_here(home: Path, shell: str) -> None:
    here = Here("here", "here", shell=shell)
    answer = here.script("probe.sh", "-\n", person=True)
    values = probe.values_of(answer.stdout)
    assert values["uid"] == [str(os.geteuid())]
    assert values["arch"] == [os.uname().machine]
    assert values["end"] == ["."]
    assert "key" not in values
    install()
    assert "key" in probe.values_of(here.script("probe.sh", f"{KEY.split()[1]}\n", person=True).stdout)


# -- what is made of the answers ------------------------------------------------------------------------------------


def seen(**values: str | list[str]) -> Seen:
    base: dict[str, str | list[str]] = {"user": "admin", "uid": "1000", "python": "3.12.3", "sudo": "free"}
    return Seen({key: value if isinstance(value, list) else [value] for key, value in (base | values).items()})


def test_noise_of_the_login_shell_is_left_out_and_nothing_reaches_the_terminal_raw() -> None:
    said = "Welcome!\nsparkfleet: user admin\n sparkfleet: user root\nsparkfleet: login x \x1b[2J y\n"
    assert probe.values_of(said) == {"user": ["admin"], "login": ["x \\x1b[2J y"]}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("free", "free"),
        ("none", "none"),
        ("refused sudo: a password is required", "password"),
        ("refused sudo: unable to resolve host x sudo: a password is required", "password"),
        ("refused Sorry, user eve may not run sudo on h.", "never"),
        ("refused eve is not in the sudoers file.", "never"),
        ("refused sudo: sorry, you must have a tty to run sudo", "never"),
    ],
)
def test_what_sudo_said(said: str, expected: str) -> None:
    assert seen(sudo=said).sudo == expected
    assert seen(sudo=said, uid="0").sudo == "free"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sudo": "none"}, "there is no sudo: as root, apt install sudo, and usermod -aG sudo admin"),
        ({"sudo": "refused admin is not in the sudoers file."}, "may not use sudo .*: usermod -aG sudo admin"),
        ({"python": "3.10.12"}, "python3 is 3.10.12, 3.11 or later is needed"),
        ({"python": ""}, "python3 is missing, 3.11 or later is needed"),
    ],
)
def test_a_host_that_a_deploy_could_do_nothing_on(values: dict[str, str], said: str) -> None:
    probe.check("h", seen())
    with pytest.raises(CommandFailed, match=said) as caught:
        probe.check("h", seen(**values))
    assert caught.value.code == ExitCode.FAILURE


def test_the_machine_in_a_line() -> None:
    spark = seen(os="Ubuntu 24.04.3 LTS", arch="aarch64", kernel="6.11.0-1016-nvidia", gpu="NVIDIA GB10")
    assert spark.machine() == "Ubuntu 24.04.3 LTS, aarch64, Linux 6.11.0-1016-nvidia, GPU NVIDIA GB10"
    assert seen(gpu_bus="000f:01:00.0").machine().endswith("an NVIDIA GPU at 000f:01:00.0, without a loaded driver")
    assert seen().machine().endswith("no NVIDIA GPU seen")


def test_who_uses_it() -> None:
    busy = seen(
        login="alice pts/0 from 10.0.0.5 since Tue 2026-11-24 10:00:00 UTC",
        terminal=["alice 523 tmux", "garbage"],
        job=["alice 4242 99.7 62914560 7500 python3", "garbage"],
        swap="/swap.img 16777212 1048576",
        deployed="yes",
        load="8.01 7.50 6.00",
        uptime="273600",
    )
    assert list(busy.in_use()) == [
        "logged in: alice pts/0 from 10.0.0.5 since Tue 2026-11-24 10:00:00 UTC",
        "kept open: tmux of alice (pid 523)",
        "running: python3 of alice (pid 4242, for 2 h 5 min, 99.7% CPU, 60.0 GiB)",
    ]
    assert list(busy.traits()) == [
        "swap is on: /swap.img, 16383 MiB, 1024 MiB of it in use",
        "sparkfleet has been deployed to it before: /opt/sparkfleet is there",
    ]
    assert busy.state() == "load 8.01 7.50 6.00, up 3 d 4 h"
    assert list(seen().in_use()) == list(seen().traits()) == []
    assert list(seen(swap="/swap.img 16777212 0").in_use()) == []


def test_refused_lost_and_failed_are_three_things() -> None:
    denied = Answer(255, "", "banner\nadmin@h: Permission denied (publickey,password).\r\n")
    assert (denied.denied, denied.lost) == (True, True)
    jump = Answer(255, "", "me@jump: Permission denied (publickey).\nConnection closed by UNKNOWN port 65535\n")
    assert (jump.denied, jump.lost) == (False, True)
    assert jump.reason == "me@jump: Permission denied (publickey).; Connection closed by UNKNOWN port 65535"
    assert not Answer(1, "", "x: Permission denied (1)").denied
    assert Answer(3, "", "").reason == "ssh ended with 3 and said nothing"


def test_the_way_is_strict_and_new() -> None:
    words = Route("h", "fd00::1", 2222, "admin", Path('/a b/100%/"k"'), Path("/id")).words()
    text = " ".join(words)
    assert words[-2:] == ["--", "fd00::1"]
    assert 'UserKnownHostsFile="/a b/100%%/\\"k\\""' in words
    for option in ("StrictHostKeyChecking=yes", "ControlPath=none", "GlobalKnownHostsFile=none", "IdentitiesOnly=yes"):
        assert option in words, text
    with pytest.raises(CommandFailed, match="ssh cannot be told of a file of this name"):
        ssh.config_word(Path("/a/${HOME}/b"))


def test_a_missing_ssh_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CommandFailed, match="there is no ssh: install OpenSSH's client") as caught:
        Route("h", "h").run("true")
    assert caught.value.code == ExitCode.BAD_CONFIGURATION


# -- the dry run ----------------------------------------------------------------------------------------------------


def test_the_password_is_handed_on_once_and_lies_in_no_file() -> None:
    with preview.handed_on("s3 cret") as command:
        assert command is not None
        assert "s3 cret" not in command
        pipe = Path(command.split()[-1])
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert mode(pipe.parent) == 0o700
        assert subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout == "s3 cret\n"
    assert not pipe.parent.exists()
    with preview.handed_on(None) as nothing:
        assert nothing is None
