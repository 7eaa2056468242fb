"""Who is ended, on simulated hosts: the scoreboard's verdicts that are quick to have (tests/bench/choice)."""

from __future__ import annotations

import pytest

from tests.bench.choice.lot import drawn
from tests.bench.choice.rules import RULES
from tests.bench.choice.run import Scenario, run, scenarios

ALL = {scenario.id: scenario for scenario in scenarios()}
# A few of each kind: what they have in common is an hour of history at most.
QUICK = (*("02", "04", "05", "11", "20", "22", "23", "30", "31", "38", "41", "44", "52", "54", "56", "59", "60", "A7"),)


def test_the_library_has_sixty_scenarios_that_tell_rules_apart() -> None:
    assert len(ALL) >= 65
    assert all(unit.get("use") for scenario in ALL.values() for unit in scenario.unit)
    assert any(not scenario.may for scenario in ALL.values())


@pytest.mark.parametrize("name", QUICK)
def test_the_right_one_is_ended_and_memory_stays(name: str) -> None:
    result = run(ALL[name], "new ground")
    assert result.is_right, (name, result.scenario.what, result.ended)
    # A7 is the worst of the whole table: nothing shows who takes the memory.
    assert result.lowest >= (0.45 if name == "A7" else 0.75)
    assert result.longest <= 10.5


def test_where_the_rule_is_wrong_is_known() -> None:
    """A leak of 5 MiB a minute settles as it goes: docs/watchdog.md says so."""
    late = ALL["16"]
    short = Scenario(**{**{key: getattr(late, key) for key in ("id", "what", "may", "unit")}, "until": 2000.0})
    leak, new = ({**unit} for unit in short.unit if unit["n"] in ("leak", "new"))
    leak |= {"use": [[0, 38.0], [1800, 38.15]]}
    short.unit = [unit for unit in short.unit if unit["n"] == "old"] + [leak, {**new, "at": 1500}]
    assert run(short, "new ground").ended == ["new"]


def test_what_was_there_before_ends_the_largest_whoever_took_the_memory() -> None:
    assert run(ALL["02"], "largest").ended == ["old"]
    assert run(ALL["44"], "earlyoom").ended == ["old"]


@pytest.mark.parametrize("scenario", drawn(8, 4), ids=lambda scenario: scenario.id)
def test_no_innocent_of_those_drawn_by_lot_is_ended(scenario: Scenario) -> None:
    result = run(scenario, "new ground")
    assert result.is_right, (scenario.what, result.ended, scenario.unit)


def test_every_rule_can_be_run() -> None:
    for rule in RULES:
        assert run(ALL["56"], rule).ended == ["new"]
