"""The daemon's configuration: refused in one line, replaced while it runs, and the last accepted one kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkhost.watchdog.cli import NO_CONFIG
from sparkhost.watchdog.model import MIB
from tests.unit.watchdog_host import ROOT, SLEEP, Host, made_host, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with made_host(tmp_path) as made:
        yield made


def state(host: Host) -> Any:
    """What the daemon last said of itself."""
    return json.loads((host.run / "state.json").read_text())


def test_with_a_bad_file_and_none_accepted_before_it_does_not_start_and_says_why_in_one_line(host: Host) -> None:
    host.set(term_below_="1GiB")
    refused = subprocess.run(
        host.command("run"), capture_output=True, text=True, timeout=60, check=False, cwd=ROOT / "files/host"
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (NO_CONFIG, 1)
    assert f"NOT GUARDED: {host.config}: term_below_: unknown key" in refused.stderr


@pytest.mark.parametrize("broken", ["term_below_ = 1", 'term_below = "9000MiB"', "\0", None])
def test_a_start_with_a_broken_file_goes_on_with_the_last_accepted_one_and_says_so(
    host: Host, broken: str | None
) -> None:
    host.daemon().terminate()
    until((host.state / "accepted.toml").exists)
    (host.run / "state.json").unlink()
    host.config.unlink()
    if broken is not None:
        host.config.write_text(broken)
        host.config.chmod(0o644)
    daemon = host.daemon()
    host.gets_tight()
    victim = host.victim(SLEEP, 60)
    assert state(host)["policy"]["term_below"] == 200 * MIB
    assert str(host.config) in state(host)["refused"]
    host.available(180)
    assert victim.wait(20) == -signal.SIGTERM
    daemon.send_signal(signal.SIGTERM)
    _, said = daemon.communicate(timeout=20)
    assert said.count("\n") == 1
    assert f"GUARDED BY THE LAST ACCEPTED configuration, {host.state / 'accepted.toml'}: {host.config}" in said


def test_a_reload_takes_a_good_file_and_leaves_a_bad_one_alone(host: Host) -> None:
    daemon = host.daemon()
    host.set(term_below_="1GiB")
    daemon.send_signal(signal.SIGHUP)
    until(lambda: "term_below_" in state(host)["refused"])
    assert state(host)["policy"]["term_below"] == 200 * MIB
    host.set(term_below="2000MiB")
    daemon.send_signal(signal.SIGHUP)
    until(lambda: not state(host)["refused"])
    assert state(host)["policy"]["term_below"] == 2000 * MIB
    until(lambda: "2000MiB" in (host.state / "accepted.toml").read_text())
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    assert daemon.stderr is not None
    assert "kept the old configuration" in daemon.stderr.read()
