"""`run`, `lock`, `history`, `undo`, `--only`: over the system's own ssh, to servers that answer as told.

Their commands are run by a real shell where that can be; what only root of a host has is made up.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pytest

from sparkfleet.cli import main
from sparkfleet.host_sources import unpacked
from sparkhost.base import deploylock, history
from sparkhost.deployhold import hold
from sparkhost.deployhold.main import run as on_host
from tests.doubles import sshd


def shell(line: str, text: str, channel: paramiko.Channel) -> None:
    """Runs the command with a shell of this machine; sudo is a double, as who is not root here has none."""
    sudo = 'sudo() { while [ "$1" != -- ]; do shift; done; shift; "$@"; };'
    done = subprocess.run(["sh", "-c", f"{sudo} {line}"], input=text, capture_output=True, text=True, check=False)
    sshd.answer(channel, done.stdout, done.returncode, done.stderr)


@contextmanager
def fleet(folder: Path, *commands: sshd.Command) -> Iterator[list[str]]:
    """Hosts `one`, `two`, …; yields the words that name their fleet file."""
    names = ["one", "two", "three"][: len(commands)]
    with sshd.serving(commands[0]) as first, sshd.serving(commands[-1]) as last:
        ports = dict(zip(names, (first, last), strict=False))
        yield ["--fleet", str(sshd.fleet_of(folder, ports))]


def test_a_command_is_run_on_every_host_and_the_worst_code_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fleet(tmp_path, shell, sshd.says("bad\n", rc=7)) as words:
        assert main(["run", "echo $((6 * 7)); echo oops >&2", *words]) == 1
        found = capsys.readouterr()
        assert found.out == "one | 42\ntwo | bad\n"
        assert found.err == "one | oops\ntwo: exit code 7\n"
        assert main(["run", "true", "--limit", "one", *words]) == 0
    assert main(["run", "true", *words]) == 3, "the servers have gone"


def test_what_a_host_says_does_nothing_to_the_terminal_and_has_an_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fleet(tmp_path, sshd.says("\x1b]0;owned\x07\n"), sshd.says("much more\n" * 200_000)) as words:
        assert main(["run", "true", *words]) == 0
    said = capsys.readouterr().out
    assert said.startswith("one | \\x1b]0;owned\\x07\n")
    assert "two | … (only the last 256 KiB are shown)\ntwo | much more\n" in said
    assert len(said) < 600_000


def test_a_command_over_its_time_is_ended_and_costs_its_host_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fleet(tmp_path, sshd.hangs, sshd.says("fine\n")) as words:
        assert main(["run", "true", "--timeout", "3", *words]) == 3
    found = capsys.readouterr()
    assert "one | no answer within 3 s\n" in found.err
    assert found.out == "two | fine\n"


def test_sudo_gets_the_password_on_its_standard_input_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []

    def wants_password(line: str, text: str, channel: paramiko.Channel) -> None:
        lines.append(line)
        if "sudo -n " in line:
            sshd.answer(channel, "", 1, "sudo: a password is required\n")
        else:
            sshd.answer(channel, "root\n" if text == "geheim\n" else "", 0 if text == "geheim\n" else 1)

    monkeypatch.setenv("SPARKFLEET_SUDO_PASSWORD_COMMAND", "echo geheim")
    with fleet(tmp_path, wants_password) as words:
        assert main(["run", "id -un", "--sudo", *words]) == 0
    assert capsys.readouterr().out == "one | root\n"
    assert len(lines) == 2
    assert "geheim" not in "".join(lines)


APPLIED = {
    "format": 1,
    "measures": {},
    "deploys": [
        {
            "at": "2026-11-20T10:00:00Z",
            "by": "ann@laptop",
            "version": "0.2.0",
            "ended": "2026-11-20T10:01:00Z",
            "measures": {"swap": {"changes": 2, "result": "changed"}, "uv": {"changes": 0, "result": "refused"}},
        },
        {"at": "2026-11-21T10:00:00Z", "by": "b\x1b[2J", "version": "0.2.1", "ended": None, "measures": {}},
    ],
}


def test_a_root_command_that_sounds_like_sudo_is_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Red where the end alone decides whether sudo wants a password: a second run would append a second line."""
    ran = tmp_path / "ran"
    monkeypatch.setenv("SPARKFLEET_SUDO_PASSWORD_COMMAND", "echo geheim")
    with fleet(tmp_path, shell) as words:
        said = "sudo: a password is required"
        assert main(["run", f"echo once >> {ran}; echo {said} >&2; exit 1", "--sudo", *words]) == 1
    assert ran.read_text() == "once\n"
    assert f"one | {said}\n" in capsys.readouterr().err


def test_the_history_of_every_host_the_last_deploy_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(tmp_path, sshd.says(json.dumps(APPLIED)), sshd.says("{}")) as words:
        assert main(["history", *words]) == 0
    assert capsys.readouterr().out == (
        "one:\n"
        "  2026-11-21T10:00:00Z  b\\x1b[2J  0.2.1  nothing to change; cut short\n"
        "  2026-11-20T10:00:00Z  ann@laptop  0.2.0  2 changes (swap); uv refused\n"
        "two: nothing was deployed to it\n"
    )


@pytest.mark.parametrize("text", ["", "[]", "no JSON", '{"deploys": [1]}', '{"deploys": {"a": 1}}', '{"a":' * 99])
def test_a_history_that_is_none_is_that_hosts_trouble(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with fleet(tmp_path, sshd.says(text), sshd.says("{}")) as words:
        assert main(["history", *words]) == 3
    found = capsys.readouterr().out.splitlines()
    assert found[0].startswith("one: /var/lib/sparkfleet/applied.json ")
    assert found[1] == "two: nothing was deployed to it"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state of a host, in a folder of this machine."""
    monkeypatch.setattr(hold, "HOLD", tmp_path / "state" / "hold.json")
    monkeypatch.setattr(deploylock, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(history, "APPLIED", tmp_path / "state" / "applied.json")
    monkeypatch.setattr(history, "BEFORE", tmp_path / "state" / "settings-before.json")
    return tmp_path


def held_by_program(line: str, text: str, channel: paramiko.Channel) -> None:
    """The host's own program, in this process."""
    sshd.answer(channel, json.dumps(on_host(unpacked(text))) + "\n")


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no Python where hosts have it")
def test_the_program_that_goes_to_a_host_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its sources travel with it: this machine's own Python has none of them."""
    with fleet(tmp_path, shell) as words:
        assert main(["lock", "status", *words]) == 0, capsys.readouterr()
    assert capsys.readouterr().out.startswith("one: ")


DEPLOY = {"token": "t", "by": "bob@desk", "pid": None}


def test_a_hold_keeps_deploys_out_until_it_is_released(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(host, held_by_program) as words:
        assert main(["lock", "status", *words]) == 0
        assert capsys.readouterr().out == "one: free\n"
        assert main(["lock", "hold", "-m", "new fan", *words]) == 0
        assert ": new fan: `sparkfleet lock release` ends that\n" in capsys.readouterr().out
        with (
            pytest.raises(deploylock.Busy, match=r"holds deploys to this host since .*: new fan"),
            deploylock.held(DEPLOY),
        ):
            pass
        assert main(["lock", "hold", "-m", "me too", *words]) == 1
        assert "one: not held: " in capsys.readouterr().out
        assert main(["lock", "release", *words]) == 0
        assert "one: released; it was: " in capsys.readouterr().out
    with deploylock.held(DEPLOY):
        pass


def test_a_hold_does_not_cut_short_a_deploy_that_is_at_work(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with deploylock.held(DEPLOY), fleet(host, held_by_program) as words:
        assert main(["lock", "hold", "-m", "new fan", *words]) == 1
        assert "bob@desk has been deploying to this host" in capsys.readouterr().out
    assert not hold.HOLD.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"by": 1}', '{"by": "a", "since": "x", "why": ""}'])
def test_a_hold_that_cannot_be_read_still_holds(host: Path, text: str) -> None:
    hold.HOLD.parent.mkdir()
    hold.HOLD.write_text(text)
    found = hold.read()
    assert found is not None
    assert "cannot be read" in found.why


@pytest.mark.parametrize("why", ["", " ", "two\nlines", "x" * 201])
def test_a_reason_is_one_line(host: Path, capsys: pytest.CaptureFixture[str], why: str) -> None:
    with fleet(host, held_by_program) as words:
        assert main(["lock", "hold", "-m", why, *words]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def deployed(token: str, **measures: dict[str, object]) -> None:
    """What a host notes of a deploy with these settings."""
    wanted = {
        name: {"state": values.get("state", "present"), "settings": json.dumps(values), "values": values}
        for name, values in measures.items()
    }
    told = {"token": token, "by": "a@b", "version": "v", "fleet_file": "f", "settings": token, "measures": wanted}
    history.close(told, {})


def kept(host: Path) -> sshd.Command:
    """A host that has kept these settings; every plan of it has nothing to change."""

    def command(line: str, text: str, channel: paramiko.Channel) -> None:
        if "settings-before.json" in line:
            path = host / "state" / "settings-before.json"
            sshd.answer(channel, path.read_text() if path.exists() else "{}")
        else:
            request = unpacked(text)
            (host / request["action"]).write_text(json.dumps([m["name"] for m in request["measures"]]))
            if request["action"] == "plan":
                (host / "sent").write_text(json.dumps(request["measures"]))
            sshd.clean(line, text, channel)

    return command


def test_the_settings_before_are_deployed_for_what_the_last_deploy_changed(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed("first", swap={"margin": "1GiB"}, ssh={"memory_min": "512MiB"})
    deployed("second", swap={"margin": "3GiB"}, ssh={"memory_min": "512MiB"})
    deployed("third", swap={"margin": "3GiB"}, ssh={"memory_min": "512MiB"})
    with fleet(host, kept(host)) as words:
        assert main(["undo", "one", "--yes", *words]) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert "  swap.margin: 3GiB → 1GiB\n" in said
    assert "is not changed: what it says comes back with the next deploy" in said
    planned = json.loads((host / "plan").read_text())
    assert "swap" in planned
    assert "ssh" not in planned
    assert str(2**30) in (host / "sent").read_text()


def test_without_settings_before_nothing_is_undone(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(host, kept(host)) as words:
        assert main(["undo", "one", "--yes", *words]) == 1
        assert "one has kept no settings" in capsys.readouterr().err
        deployed("first", swap={"margin": "1GiB"})
        assert main(["undo", "one", "--yes", *words]) == 1
        assert "its last deploy was its first one" in capsys.readouterr().err
    assert not (host / "plan").exists()


@pytest.mark.parametrize("values", [{"margin": "12"}, {"mode": "\x1b[2J"}, {"nonsense": 1}])
def test_what_a_host_has_kept_is_checked_as_a_fleet_file_is(
    host: Path, capsys: pytest.CaptureFixture[str], values: dict[str, object]
) -> None:
    deployed("first", swap=values)
    deployed("second", swap={"margin": "3GiB"})
    with fleet(host, kept(host)) as words:
        assert main(["undo", "one", "--yes", *words]) == 1
    assert "has settings that are none of this version's" in capsys.readouterr().err
    assert not (host / "plan").exists()


def test_a_host_does_not_choose_what_is_downloaded_here(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Red where the settings of uv that a host has kept are deployed: they name a wheel and its hash."""
    deployed("first", uv={"version": "0.0.1"})
    deployed("second", uv={"version": "0.0.2"})
    with fleet(host, kept(host)) as words:
        assert main(["undo", "one", "--yes", *words]) == 1
        assert "changed uv alone, which is not taken back" in capsys.readouterr().err
        deployed("third", uv={"version": "0.0.3"}, swap={"margin": "1GiB"})
        deployed("fourth", uv={"version": "0.0.4"}, swap={"margin": "3GiB"})
        assert main(["undo", "one", "--yes", *words]) == 0, capsys.readouterr()
    assert "0.0.3" not in capsys.readouterr().out
    planned = json.loads((host / "plan").read_text())
    assert "swap" in planned
    assert "uv" not in planned


def test_settings_before_are_roots_alone_and_go_with_the_history(host: Path) -> None:
    deployed("first", swap={"margin": "1GiB"})
    assert history.BEFORE.stat().st_mode & 0o777 == 0o600
    deployed("last", swap={"state": "absent"})
    assert not history.BEFORE.exists()


def test_only_some_measures_are_planned(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fleet(host, kept(host)) as words:
        assert main(["drift", "--only", "uv", "--only", "swap", *words]) == 0, capsys.readouterr()
        assert json.loads((host / "plan").read_text())[:2] == ["swap", "uv"]
        assert "ssh" not in (host / "plan").read_text()
        assert main(["drift", "--only", "swop", *words]) == 4
    assert "--only 'swop' is no measure of sparkfleet: did you mean swap?" in capsys.readouterr().err
