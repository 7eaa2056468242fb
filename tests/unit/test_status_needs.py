"""What of a host needs a person, and what the controller's own records say of it."""

from __future__ import annotations

import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sparkfleet.audit.model import Status
from sparkfleet.audit.store import Store
from sparkfleet.deploy.outcome import Outcome, State
from sparkfleet.status import attention, records, table
from sparkfleet.status.attention import Level, needs
from sparkfleet.status.fleet import Traces, views
from sparkfleet.status.records import Audited, Drifted, Records
from sparkfleet.status.shape import HostSays
from sparkfleet.status.stream import Heard, Link
from tests.doubles import status_host
from tests.doubles.status_host import GIB
from tests.unit.audit_runs import CONTROLS, small


def heard(**more: Any) -> Heard:
    return Heard(Link.UP, HostSays.model_validate(status_host.says(**more)), time.monotonic())


SHORT = {**status_host.says()["memory"], "available": 3 * GIB}
OLD_KILL = {**status_host.kill(), "at": time.time() - 7200}
CASES = {
    "memory": (heard(memory=SHORT), Level.ACT),
    "kill": (heard(kill=status_host.kill()), Level.ACT),
    "heat": (heard(temperature=attention.HOT), Level.ACT),
    "watchdog": (heard(floor={"term": None, "kill": None, "problem": "no memory watchdog runs"}), Level.ACT),
    "clock": (heard(gpus=[{"name": "GB10", "clock": 600, "most": 3003}]), Level.LOOK),
    "warning": (heard(warnings=["4 GiB are held by nobody"]), Level.LOOK),
    "reboot": (heard(reboot="for linux"), Level.LOOK),
    "link": (
        heard(links=[{"name": "a", "state": "down", "gbits": 0}, {"name": "b", "state": "active", "gbits": 200}]),
        Level.LOOK,
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_thing_that_needs_somebody_is_one_line(kind: str) -> None:
    seen, level = CASES[kind]
    assert [(need.kind, need.level) for need in needs(seen, None, None)] == [(kind, level)]


@pytest.mark.parametrize(
    "calm",
    [
        heard(),
        heard(kill=OLD_KILL),
        heard(temperature=attention.HOT - 1),
        # An idle GPU clocks down.
        heard(gpus=[{"name": "GB10", "clock": 600, "most": 3003}], jobs=[]),
        # Ports without a cable, on a host that has none at all.
        heard(links=[{"name": "a", "state": "down", "gbits": 0}]),
        # A host that was never deployed to has no watchdog that could be missed.
        heard(floor={"problem": "no watchdog"}, release={"version": ""}),
    ],
)
def test_what_is_as_it_should_be_needs_nobody(calm: Heard) -> None:
    assert needs(calm, None, None) == []


def test_records_are_told_with_their_age() -> None:
    now = time.time()
    red = Audited(now - 60, "r", {"critical": 1, "low": 2}, 0, "")
    old = Audited(now - 3 * 86400, "r", {}, 0, "")
    drift = Drifted(now - 7200, "drift", "drift", 4)
    assert needs(heard(), red, None)[0].level is Level.ACT
    assert [need.text for need in needs(heard(), old, None)] == ["the last audit is 3 d old"]
    assert [need.text for need in needs(heard(), None, drift)] == ["drift 2 h ago: drift (4 changes)"]
    assert needs(heard(), None, replace(drift, state="clean")) == []


def test_who_needs_a_person_most_stands_first(tmp_path: Path) -> None:
    found = {
        "spark10": heard(),
        "spark2": heard(),
        "gone": Heard(Link.GONE, None, None, "no route"),
        "reboots": heard(reboot="for linux"),
        "worst": heard(memory=SHORT, kill=status_host.kill()),
    }
    names = [view.name for view in views(found, Records(tmp_path / "f.yaml"))]
    assert names == ["worst", "gone", "reboots", "spark2", "spark10"]


def test_a_deploy_and_a_drift_are_noted_host_by_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    fleet = tmp_path / "fleet.yaml"
    records.note(fleet, [Outcome("a", State.CHANGED, "", {}), Outcome("b", State.CLEAN, "", {})], "deploy")
    records.note(fleet, [Outcome("b", State.DRIFT, "", {})], "drift")
    found = records.drifts_of(fleet)
    assert {name: (one.by, one.state) for name, one in found.items()} == {
        "a": ("deploy", "changed"),
        "b": ("drift", "drift"),
    }
    assert records.drifts_of(tmp_path / "other.yaml") == {}
    records.path_of(fleet).write_text("[")
    assert records.drifts_of(fleet) == {}
    records.note(None, [], "drift")


def test_the_last_audit_of_this_fleet_file_is_read(tmp_path: Path) -> None:
    run = replace(small(), fleet_file="/f.yaml", id="20261124T121500Z-3f9c")
    Store(tmp_path).append(run, CONTROLS)
    Store(tmp_path).append(replace(run, fleet_file="/other.yaml", id="20261124T131500Z-3f9c"), CONTROLS)
    found = Records(Path("/f.yaml"), store=tmp_path)
    found.look()
    for host in run.hosts:
        red = sum(v.status is Status.FAIL for v in run.verdicts if v.host == host.name)
        assert sum(found.audits[host.name].red.values()) == red
        assert found.audits[host.name].run == run.id
        assert len(found.audits[host.name].letters) == len(found.controls)


def test_the_last_night_can_be_looked_at_on_a_terminal(tmp_path: Path) -> None:
    """A night in which memory was short for a while, and the host was off for some hours."""
    told = heard()
    night = [
        (1e9 + 60 * at, (3 if 304 <= at < 310 else 60) * GIB, 0, None) for at in range(1440) if not 700 <= at < 900
    ]
    told.day.add(night)
    told.day.add(night[-5:])
    (view,) = views({"spark1": told}, Records(tmp_path / "f.yaml"))
    console = Console(width=140, file=StringIO())
    console.print(table.host(view, Traces(), 140))
    assert isinstance(console.file, StringIO)
    (line,) = [line for line in console.file.getvalue().splitlines() if "available in 24 h" in line]
    assert line.endswith("at least 3.0 GiB")
    blocks = line.partition(" available")[0]
    assert len(blocks) == 100
    assert (blocks[0], blocks[-1], blocks.count("▁")) == ("▄", "▄", 1)
    assert " " * 12 in blocks


def test_a_day_has_an_end() -> None:
    told = heard()
    told.day.add((float(at), at, at, at) for at in range(5000))
    rows = told.day.rows()
    assert (len(rows), rows[0][0], rows[-1]) == (1440, 3560.0, (4999.0, 4999, 4999, 4999))
