"""The example fleet file and docs/settings.md: both know every setting that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from sparkfleet import compatibility, docs
from sparkfleet.settings import FleetFile, HostEntry, HostSettings, Measure, Size, load_fleet
from sparkfleet.settings.yaml_file import read_yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "inventories" / "example.yaml"

MEASURES: dict[str, type[Measure]] = {name: type(measure) for name, measure in HostSettings()}
# What the loader fills in (ADR 19) stands in no fleet file.
FILLED_IN = {(name, key) for name, measure in MEASURES.items() if measure.of_group for key in ("host", "hosts")}
FIELDS = [(n, k) for n, measure in MEASURES.items() for k in measure.model_fields if (n, k) not in FILLED_IN]


def test_the_example_is_five_hosts_that_load() -> None:
    fleet = load_fleet(EXAMPLE)
    assert [host.name for host in fleet.hosts] == [f"spark{n}" for n in range(1, 6)]
    spark3, spark4 = (fleet.hosts[n].settings for n in (2, 3))
    assert spark3.cuda_env.variables["OMP_NUM_THREADS"] == "10"
    assert spark4.swap.mode == "keep"
    assert spark4.swap.margin == Size.parse("1GiB")


@pytest.mark.parametrize(("name", "key"), FIELDS)
def test_the_example_sets_and_explains_every_setting(name: str, key: str) -> None:
    document = read_yaml(EXAMPLE)
    assert key in document.value["defaults"].get(name, {})
    line = EXAMPLE.read_text().splitlines()[document.lines["defaults", name, key] - 1]
    # `state` is explained where it comes first.
    assert "#" in line or key == "state"


def test_the_example_uses_every_key_of_the_file_and_of_a_host() -> None:
    value = yaml.safe_load(EXAMPLE.read_text())
    assert set(value) == set(FleetFile.model_fields)
    assert set(value["hosts"]["spark1"]) == set(HostEntry.model_fields)


def test_the_settings_page_is_up_to_date() -> None:
    stale = docs.PAGE.read_text(encoding="utf-8") != docs.settings_page()
    assert not stale, "docs/settings.md is stale: run python -m sparkfleet.docs"


def test_the_list_of_controls_is_up_to_date() -> None:
    stale = docs.AUDIT.read_text(encoding="utf-8") != docs.audit_page()
    assert not stale, "docs/audit.md is stale: run python -m sparkfleet.docs"


def test_the_list_of_known_errors_is_up_to_date() -> None:
    stale = docs.DOCTOR.read_text(encoding="utf-8") != docs.doctor_page()
    assert not stale, "docs/doctor.md is stale: run python -m sparkfleet.docs"


def test_the_page_of_compatibility_is_up_to_date() -> None:
    stale = docs.COMPATIBILITY.read_text(encoding="utf-8") != docs.compatibility_page()
    assert not stale, "docs/compatibility.md is stale: run python -m sparkfleet.docs"


def test_what_is_said_of_a_program_has_a_source_that_can_be_followed() -> None:
    """A thread, a page of ours, or a named page of somebody's; what is reported is never ours alone."""
    for item in (*compatibility.PACKAGES, *compatibility.FLAGS, *compatibility.TIMELINE):
        assert re.search(r"[\w.-]+/[\w.-]+#\d+|\]\(\w+\.md\)|forum \d+|page on", item.source), item
        assert getattr(item, "known", "") != "reported" or re.search(r"#\d+|forum \d+", item.source), item
        for page in re.findall(r"\]\((\w+\.md)\)", item.source + getattr(item, "how", "")):
            assert docs.COMPATIBILITY.with_name(page).is_file()


@pytest.mark.parametrize("model", [FleetFile, HostEntry, *MEASURES.values()])
def test_the_settings_page_has_a_row_for_every_field(model: type[BaseModel]) -> None:
    for key, field in model.model_fields.items():
        assert f"| `{key}` |" in docs.settings_page()
        assert (field.description or "?") in docs.settings_page()
