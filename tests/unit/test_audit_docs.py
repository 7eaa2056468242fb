"""docs/audit.md: its hooks run, and what it says about waivers and exit codes is so."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from sparkfleet.audit.diff import diff
from sparkfleet.audit.model import Status
from sparkfleet.audit.notify import notify
from sparkfleet.audit.waivers import WaiverEntry
from sparkfleet.exit_codes import ExitCode
from tests.unit.audit_runs import CONTROLS, run

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "audit.md").read_text()
HOOKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
WORSE = diff(
    run({"spark1": [Status.PASS] * 5}),
    run({"spark1": [Status.FAIL, *[Status.PASS] * 4]}, id="20261125T121500Z-bbbb"),
    CONTROLS,
)


def hook(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A hook of the page as a file, with a `tool` in place of sendmail and curl that keeps what it gets."""
    tools = folder / "bin"
    tools.mkdir()
    for name in ("curl", "sendmail"):
        (tools / name).write_text(f'#!/bin/sh\necho "$*" >{folder}/arguments\ncat >{folder}/input\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", "/home/me")
    path = folder / "hook"
    path.write_text(text.replace("/usr/sbin/sendmail", str(tools / "sendmail")))
    path.chmod(0o755)
    return str(path)


def test_the_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert notify(WORSE, hook(HOOKS[0], tmp_path, monkeypatch))
    assert (tmp_path / "arguments").read_text() == "-t -oi\n"
    head, _, body = (tmp_path / "input").read_text().partition("\n\n")
    assert head.splitlines()[:2] == [
        "To: ops@example.org",
        "Subject: sparkfleet audit: newly failing: SPK-SWAP-01 on spark1 (critical)",
    ]
    assert body.splitlines()[0] == "newly failing critical SPK-SWAP-01 on spark1"
    assert "Run 20261125T121500Z-bbbb;" in body


def test_the_webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert notify(WORSE, hook(HOOKS[1], tmp_path, monkeypatch))
    assert "--data-binary @- --config /home/me/.config/sparkfleet/webhook.curl" in (tmp_path / "arguments").read_text()
    said = yaml.safe_load((tmp_path / "input").read_text())
    assert said == {"text": "sparkfleet audit: newly failing: SPK-SWAP-01 on spark1 (critical)"}


def test_the_hooks_are_sound() -> None:
    assert len(HOOKS) == 2
    for text in HOOKS:
        subprocess.run(["sh", "-n"], input=text.encode(), check=True)


def test_every_key_of_a_waiver_is_told() -> None:
    for key in WaiverEntry.model_fields:
        assert f"| `{key}` |" in PAGE
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert set(yaml.safe_load(example)["waivers"][0]) == set(WaiverEntry.model_fields)


def test_every_verdict_and_exit_code_is_told() -> None:
    for status in Status:
        assert f"| {status} |" in PAGE
    codes = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {code.value} |" in codes


def test_the_place_of_the_controls_is_there_once() -> None:
    assert PAGE.count("<!-- controls: begin") == PAGE.count("<!-- controls: end -->") == 1
