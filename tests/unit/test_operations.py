"""What pyinfra makes of a deploy to hosts that have the same, or not. Hosts are doubles (sshd.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
import yaml

from tasks.lib import origin
from tasks.lib.wanted import wanted
from tests.doubles import sshd

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = """\
from tasks import swap, training_slice, watchdog
from tasks.lib import converge

converge.deploy(swap, training_slice, watchdog)
"""


def test_what_only_some_hosts_have_stays_an_operation_of_its_own(tmp_path: Path) -> None:
    with ExitStack() as stack:
        ports = {name: stack.enter_context(sshd.serving(sshd.clean)) for name in ("all", "less")}
        path = sshd.fleet_of(tmp_path, {"all_of_it": ports["all"], "less": ports["less"]})
        raw = yaml.safe_load(path.read_text())
        raw["hosts"]["less"]["settings"] = {"training_slice": {"state": "unmanaged"}}
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        (tmp_path / "deploy.py").write_text(DEPLOY)
        done = subprocess.run(
            [sys.executable, "-m", "pyinfra", "-y", str(ROOT / "inventory.py"), str(tmp_path / "deploy.py")],
            cwd=ROOT,
            env={**os.environ, "FLEET": str(path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"Starting operation: (.*?)\s*$", done.stdout + done.stderr, re.MULTILINE) == [
        "swap",
        "training_slice",
        "watchdog",
        "systemd",
        "swap after daemon-reload",
        "training_slice after daemon-reload",
        "watchdog after daemon-reload",
        "finish",
    ]


def test_hosts_that_come_at_the_same_time_share_one_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[SimpleNamespace] = []

    def apply(settings: SimpleNamespace) -> tuple[()]:
        rendered.append(settings)
        return ()

    measure: Any = SimpleNamespace(__name__="tasks.swap", apply=apply)

    def version() -> str:
        gevent.sleep(0)  # as while git is waited for: other hosts come
        return "1"

    monkeypatch.setattr(origin, "version", version)
    monkeypatch.setattr("tasks.lib.wanted._MADE", {})
    hosts = [gevent.spawn(wanted, {"swap": {"margin": "1GiB"}}, [measure], local=False) for _ in range(20)]
    gevent.joinall(hosts, raise_error=True)
    assert len(rendered) == 1
    assert len({id(host.value) for host in hosts}) == 1
