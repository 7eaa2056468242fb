"""The hook: when it runs, what it gets, and how it may fail."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sparkfleet.audit.diff import Diff, diff
from sparkfleet.audit.model import Run, Status
from sparkfleet.audit.notify import notify
from sparkfleet.exit_codes import CommandFailed
from tests.unit.audit_runs import CONTROLS, HOSTILE, run, verdict

GOOD = run({"spark1": [Status.PASS] * 5}, id="20261124T121500Z-aaaa")
BAD = run({"spark1": [Status.FAIL, *[Status.PASS] * 4]}, id="20261125T121500Z-bbbb")
WORSE = diff(GOOD, BAD, CONTROLS)


def script(folder: Path, text: str) -> str:
    path = folder / "a hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"'{path}' 'one word' $HOME"


def test_it_gets_the_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKFLEET_SUDO_PASSWORD_COMMAND", "secret")
    hook = script(
        tmp_path,
        f'cat >{tmp_path}/in; printf "%s|%s|%s|%s|%s" "$SPARKFLEET_AUDIT_SUMMARY" "$SPARKFLEET_AUDIT_RUN" '
        f'"$SPARKFLEET_SUDO_PASSWORD_COMMAND" "$1" "$2" >{tmp_path}/env',
    )
    assert notify(WORSE, hook)
    assert json.loads((tmp_path / "in").read_text())["changes"][0]["control"] == "SPK-SWAP-01"
    assert (tmp_path / "env").read_text() == (
        "newly failing: SPK-SWAP-01 on spark1 (critical)|20261125T121500Z-bbbb||one word|$HOME"
    )


@pytest.mark.parametrize("found", [diff(BAD, GOOD), diff(GOOD, GOOD), diff(BAD, BAD)])
def test_it_runs_only_when_something_got_worse(found: Diff, tmp_path: Path) -> None:
    assert not notify(found, script(tmp_path, f"touch {tmp_path}/ran"))
    assert not (tmp_path / "ran").exists()


def test_hostile_text_is_one_printable_line(tmp_path: Path) -> None:
    hostile: Run = replace(BAD, verdicts=(verdict("SPK-SWAP-01", HOSTILE + "\0", Status.FAIL),))
    hook = script(tmp_path, f'printf "%s" "$SPARKFLEET_AUDIT_SUMMARY" >{tmp_path}/env')
    assert notify(diff(GOOD, hostile), hook)
    said = (tmp_path / "env").read_text()
    assert said.isprintable()
    assert len(said) <= 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no route; echo 'mail: \033[2Jno' >&2; exit 7", r"ended with 7: mail: \x1b[2Jno"),
        ("exit 1", "ended with 1: it said nothing"),
        ("kill -9 $$", "killed by signal 9: it said nothing"),
        ("yes | head -c 3000000; echo last; exit 1", "ended with 1: last"),
    ],
)
def test_its_failure_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        notify(WORSE, script(tmp_path, text))
    assert str(caught.value) == f"hook {tmp_path}/a hook: {said}"
    assert caught.value.code == 1


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("/nonexistent/hook", "hook /nonexistent/hook: cannot be started: No such file or directory"),
        ("/etc/passwd", "hook /etc/passwd: cannot be started: Permission denied"),
        ("'", '--hook: got "\'": No closing quotation'),
        (" ", "--hook: got nothing, expected a command"),
    ],
)
def test_a_hook_that_is_none_is_bad_configuration(hook: str, said: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        notify(WORSE, hook)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == 4


def test_it_is_ended_when_it_takes_too_long_with_what_it_started(tmp_path: Path) -> None:
    hook = script(tmp_path, f"sleep 600 & echo $! >{tmp_path}/child; wait")
    started = time.monotonic()
    with pytest.raises(CommandFailed, match=r"no end within 0\.5 s, it was ended: nobody may have been told"):
        notify(WORSE, hook, seconds=0.5)
    assert time.monotonic() - started < 10
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the hook's child is still there")


def test_it_is_ended_when_it_never_stops_talking(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(CommandFailed, match="says more than 16 MiB, it was ended: nobody may have been told"):
        notify(WORSE, script(tmp_path, f"echo $$ >{tmp_path}/pid; exec yes"), seconds=30)
    assert time.monotonic() - started < 10
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_what_it_leaves_running_does_not_hold_the_audit_up(tmp_path: Path) -> None:
    hook = script(tmp_path, f"sleep 30 & echo $! >{tmp_path}/child")
    started = time.monotonic()
    assert notify(WORSE, hook, seconds=20)
    assert time.monotonic() - started < 10
    os.kill(int((tmp_path / "child").read_text()), 9)


def test_it_need_not_read_what_it_gets(tmp_path: Path) -> None:
    big = replace(BAD, verdicts=tuple(replace(v, saw="x" * 2_000_000) for v in BAD.verdicts))
    assert notify(diff(GOOD, big), f"{sys.executable} -c pass")
