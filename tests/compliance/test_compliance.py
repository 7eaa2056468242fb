"""One item for each control and host; those about the fleet as a whole are one item each."""

from __future__ import annotations

import pytest

from sparkfleet.audit.collect import Target
from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.judge import judge_run
from sparkfleet.audit.model import Control, HostRun, Status
from tests.compliance.conftest import fleet_of

FLEET = "fleet"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    fleet = fleet_of(metafunc.config)
    hosts = [host.name for host in fleet.hosts] if fleet else []
    pairs = [
        pytest.param(host, control, id=f"{host}-{control.id}")
        for control in CONTROLS
        for host in ([FLEET] if control.fleet_judge else hosts)
    ]
    metafunc.parametrize(("where", "control"), pairs)


def test_control(where: str, control: Control, runs: dict[str, HostRun], targets: list[Target]) -> None:
    """Passes, is skipped where the control does not apply, and fails with what was wanted and what was seen."""
    settings = {target.name: target.settings for target in targets}
    seen = list(runs.values()) if control.fleet_judge else [runs[where]]
    (verdict,) = judge_run(seen, settings, [control])
    if verdict.status is Status.NOT_APPLICABLE:
        pytest.skip(verdict.saw)
    if verdict.status is not Status.PASS:
        pytest.fail(
            f"{verdict.status}: {control.id} ({control.severity}) on {where}: {control.title}\n"
            f"wanted: {verdict.wanted}\nsaw:    {verdict.saw}\nby:     {verdict.command}\nmend:   {control.manual_fix}",
            pytrace=False,
        )
