"""The command line: every mistake of a user is one line on stderr and the exit code of the table."""

from __future__ import annotations

import argparse
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparkfleet import cli
from sparkfleet.enrol import hostkey, talk
from sparkfleet.enrol.hostkey import HostKey
from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings import FleetError

KEY = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIMe5RaW9lW8a71iuaLUOjyGuig1SCTWz67lYqaQDCuRY")


def test_the_table() -> None:
    codes = {code.name: int(code) for code in ExitCode}
    assert codes == {
        "CLEAN": 0,
        "FAILURE": 1,
        "DRIFT": 2,
        "UNREACHABLE": 3,
        "BAD_CONFIGURATION": 4,
        "INTERRUPTED": 130,
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["enrol"], "the following arguments are required: NAME"),
        (["enrol", "a", "--port", "ssh"], "got 'ssh', expected a port from 1 to 65535"),
        (["enrol", "a", "--port", "0"], "got '0', expected a port from 1 to 65535"),
        (["enrol", "a", "--fingerprint", "MD5:1"], "got 'MD5:1', expected SHA256: and 43 characters"),
        (["enrol", "a"], "which fleet file? name it with --fleet, or set $FLEET"),
    ],
)
def test_a_wrong_call_is_bad_configuration(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLEET", raising=False)
    assert cli.main(arguments) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (CommandFailed("spark1: no", ExitCode.UNREACHABLE), 3, "sparkfleet: spark1: no\n"),
        (CommandFailed("spark1: no"), 1, "sparkfleet: spark1: no\n"),
        (FleetError(["a.yaml:1: x", "a.yaml:2: y"]), 4, "a.yaml:1: x\na.yaml:2: y\n"),
        (
            KeyboardInterrupt(),
            130,
            "\nsparkfleet: interrupted; nothing is half-written, the same command goes on from here\n",
        ),
    ],
)
def test_how_a_command_ends(
    raised: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(commands: Any) -> None:
        def run(arguments: argparse.Namespace) -> ExitCode:
            raise raised

        commands.add_parser("do").set_defaults(run=run)

    monkeypatch.setattr(cli, "SUBCOMMANDS", (add,))
    assert cli.main(["do"]) == code
    assert capsys.readouterr().err == said


def test_a_host_of_that_name_at_another_address_is_refused_by_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = tmp_path / "fleet.yaml"
    text = "groups: {a: , b: }\nhosts:\n  x:\n  spark3:\n    address: 10.0.0.3\n    groups: [a]\n"
    fleet.write_text(text)
    for given, said in (
        (["--address", "10.0.0.4"], "address 10.0.0.3, not 10.0.0.4"),
        (["--port", "2222"], "port not set, not 2222"),
        (["--user", "eve"], "user not set, not eve"),
        (["--group", "a", "--group", "b"], "groups ['a'], not ['a', 'b']"),
    ):
        assert cli.main(["enrol", "spark3", "--fleet", str(fleet), *given]) == 4
        assert f"{fleet}:4: spark3 is in the fleet with {said}: choose another name" in capsys.readouterr().err
    assert cli.main(["enrol", "x", "--fleet", str(fleet), "--address", "10.0.0.4"]) == 4
    assert "x is in the fleet with address x, not 10.0.0.4" in capsys.readouterr().err
    assert fleet.read_text() == text


def test_a_bad_fleet_file_is_reported_before_anything_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("hosts:\n  a: {adress: x}\n")
    monkeypatch.setenv("FLEET", str(fleet))
    assert cli.main(["enrol", "b", "--address", "10.0.0.4"]) == 4
    assert "hosts.a.adress: unknown key, did you mean address?" in capsys.readouterr().err


def answers(monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    left = iter(given)

    def answer(question: str) -> str:
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(talk, "has_terminal", lambda: True)


@pytest.mark.parametrize("given", [["yes"], ["what?", "YES"], [KEY.fingerprint], [f" {KEY.fingerprint}  "]])
def test_a_host_key_is_confirmed(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, *given)
    talk.confirm_host_key("h", KEY)


@pytest.mark.parametrize(
    ("given", "code"),
    [(["no"], 1), ([""], 1), ([], 1), (["y"], 1), (["SHA256:" + "x" * 43], 3)],
)
def test_a_host_key_is_not_confirmed(given: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, *given)
    with pytest.raises(CommandFailed, match="nothing was changed") as caught:
        talk.confirm_host_key("h", KEY)
    assert caught.value.code == code


def test_without_a_terminal_nothing_is_taken_for_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "has_terminal", lambda: False)
    with pytest.raises(CommandFailed, match=r"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key\.pub"):
        talk.confirm_host_key("h", KEY)
    with pytest.raises(CommandFailed, match="name the one to install with --key"):
        talk.confirm_install("h", "id")


FAKE_SSH = """\
#!/bin/sh
# Answers like ssh: its settings, and the offer of a key to the KnownHostsCommand.
for word; do
    case $word in
        -G) printf 'hostname h\\nport 22\\n'; exit ;;
        KnownHostsCommand=*) set -- ${word#*=}; eval "sh $2" HOSTNAME h KIND DATA; exit 255 ;;
    esac
done
exit 255
"""


def test_ctrl_c_at_the_question_changes_nothing_and_is_one_line(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ssh").write_text(FAKE_SSH.replace("KIND", KEY.kind).replace("DATA", KEY.data))
    (tools / "ssh").chmod(0o755)
    main, side = pty.openpty()
    command = [sys.executable, "-m", "sparkfleet.cli", "enrol", "h", "--fleet", str(tmp_path / "f.yaml")]
    process = subprocess.Popen(
        # Whoever starts the tests may ignore SIGINT, as a shell does for what it runs in the background.
        ["env", "--default-signal=INT", "setsid", "--ctty", "--wait", *command],
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    said = b""
    while not said.endswith(b"there) "):
        said += os.read(main, 4096)
    os.write(main, b"\x03")
    try:
        while True:
            # Python's input() does not see a signal that comes between its prompt and its read: people press again.
            while not select.select([main], [], [], 2)[0]:
                os.write(main, b"\x03")
            if not (chunk := os.read(main, 4096)):
                break
            said += chunk
    except OSError:
        pass  # Linux: the terminal's last user has gone
    os.close(main)
    text = said.decode()
    assert process.wait() == 128 + signal.SIGINT, text
    assert KEY.fingerprint in text
    assert text.rstrip().endswith(
        "sparkfleet: interrupted; nothing is half-written, the same command goes on from here"
    )
    assert "Traceback" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


def test_the_offer_is_looked_up_under_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"hostname": ["spark.lab"], "port": ["2222"]}
    monkeypatch.setattr(hostkey, "settings_of", lambda *_: shown)
    assert hostkey.paramiko_names(Route("s", "Spark.Lab")) == ("[Spark.Lab]:2222",)
    assert hostkey.paramiko_names(Route("s", "alias")) == ("[spark.lab]:2222",)
    shown["port"] = ["22"]
    assert hostkey.paramiko_names(Route("s", "alias")) == ("spark.lab",)
