"""`pytest tests/compliance --fleet FILE`: the hosts of a fleet file, probed once, all at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkfleet.audit.collect import Target, collect, target_of
from sparkfleet.audit.model import HostRun
from sparkfleet.settings import Fleet, FleetError, load_fleet

NO_FLEET = "tests/compliance audits real hosts and has collected nothing: name a fleet file with --fleet FILE"
FLEET = pytest.StashKey[Fleet]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fleet", type=Path, metavar="FILE", help="fleet file whose hosts tests/compliance audits")


def fleet_of(config: pytest.Config) -> Fleet | None:
    """The fleet that was named; None without one, also where this folder is collected with all others."""
    if FLEET in config.stash:
        return config.stash[FLEET]
    path = config.getoption("--fleet", default=None)
    if path is None:
        return None
    try:
        config.stash[FLEET] = load_fleet(path)
    except FleetError as error:
        raise pytest.UsageError(*error.lines) from error
    return config.stash[FLEET]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Nothing is collected without hosts: items that are skipped look like an audit."""
    return True if collection_path.parent == Path(__file__).parent and fleet_of(config) is None else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if fleet_of(config) is None:
        terminalreporter.write_line(NO_FLEET, yellow=True)


@pytest.fixture(scope="session")
def targets(request: pytest.FixtureRequest) -> list[Target]:
    """Every host of the fleet file."""
    fleet = fleet_of(request.config)
    return [target_of(host, fleet.known_hosts) for host in fleet.hosts] if fleet else []


@pytest.fixture(scope="session")
def runs(targets: list[Target]) -> dict[str, HostRun]:
    """What each host answered to the one probe of this session."""
    return {run.name: run for run in collect(targets)}
