"""Sizes that are a share of the memory: one fleet file for hosts of several sizes; host and audit find the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sparkfleet.audit.controls import host_judges, training_slice_judges, watchdog_judges
from sparkfleet.audit.model import Evidence, Observation, Status
from sparkfleet.settings import HostSettings, Share, Size, TrainingSliceSettings, WatchdogSettings
from sparkhost.base import converge, headroom, shares
from sparkhost.base.resource import Context, Refused
from sparkhost.launcher import config as launcher
from sparkhost.training_slice import slices
from sparkhost.training_slice.slices import SliceFits
from sparkhost.watchdog.config import parse
from sparkhost.watchdog.floors import FloorsFit
from tasks import training_slice, vllm_source, watchdog
from tasks.lib.sizes import on_host
from tasks.lib.wanted import requests

MIB, GIB = 2**20, 2**30
SIZES = (1.5, 54, 60, 119.7, 120, 121.7)
SLICE = TrainingSliceSettings()
CASES = st.sampled_from(SIZES).map(lambda gib: int(gib * GIB)) | st.integers(256 * MIB, 2**45)


def settled(value: Any, total: int) -> Any:
    return shares.settled(json.loads(json.dumps(value)), lambda: total)


def sizes(total: int) -> dict[str, int]:
    """What the defaults are on a host of so many bytes."""
    term, kill = WatchdogSettings().floors
    given = {name: getattr(SLICE, name) for name in ("memory_max", "reserve", "session_memory_max", "need")}
    asked = {**given, "term_below": term, "kill_below": kill}
    return {name: settled(on_host(size), total) for name, size in asked.items()}


@pytest.mark.parametrize(
    ("gib", "figures"),
    [
        # What the defaults were before there were shares.
        *((gib, [100 * 1024, 16 * 1024, 8 * 1024, 80 * 1024, 16 * 1024, 8 * 1024]) for gib in (119.7, 120, 121.7)),
        (60, [50 * 1024, 8 * 1024, 4 * 1024, 40 * 1024, 8 * 1024, 4 * 1024]),
        (54, [45 * 1024, 7372, 3686, 36 * 1024, 7372, 3686]),
        (1.5, [1280, 204, 102, 1024, 204, 102]),
    ],
)
def test_the_defaults_of_each_host_in_mib(gib: float, figures: list[int]) -> None:
    assert [size / MIB for size in sizes(int(gib * GIB)).values()] == figures


@given(CASES)
def test_the_defaults_fit_every_host(total: int) -> None:
    found = sizes(total)
    assert 0 < found["kill_below"] < found["term_below"] <= total / 2
    assert found["memory_max"] + found["reserve"] <= total
    assert found["session_memory_max"] < found["memory_max"]
    assert found["need"] <= found["memory_max"]


@given(CASES, st.integers(1, 99))
def test_the_audit_works_a_share_out_as_the_host_does(total: int, percent: int) -> None:
    size = TrainingSliceSettings.model_validate({"memory_max": f"{percent}%"}).memory_max
    assert isinstance(size, Share)
    assert size.of(total) == settled(on_host(size), total)
    assert abs(size.of(total) - total * percent / 100) <= total / 32 + MIB


def host_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal:       {total // 1024} kB\nMemAvailable:   {total * 9 // 10 // 1024} kB\n")
    monkeypatch.setattr(slices, "MEMINFO", path)


@pytest.mark.parametrize("gib", SIZES)
def test_no_host_refuses_the_defaults(gib: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = int(gib * GIB)
    host_of(tmp_path, monkeypatch, total)
    asked = requests(HostSettings(), [training_slice, watchdog, vllm_source])
    found = [one for each in settled(asked, total) for one in each["resources"]]
    kinds = {one["kind"]: one for one in found}
    fits, floors = kinds["slice_fits"], kinds["floors_fit"]
    assert SliceFits(fits["memory_max"], fits["reserve"], "none.slice").plan(Context()) == []
    assert FloorsFit(floors["term_below"], floors["kill_below"]).plan(Context()) == []
    contents = {one["path"]: one["content"] for one in found if {"path", "content"} <= one.keys()}
    own = launcher.parse(contents[training_slice.CONFIG])
    expected = sizes(total)
    assert (own.memory_max, own.need, own.reserve) == tuple(expected[key] for key in ("memory_max", "need", "reserve"))
    policy = parse(contents[watchdog.CONFIG], "f", total).policy
    assert (policy.term_below, policy.kill_below) == (expected["term_below"], expected["kill_below"])
    assert f"MemoryMax={expected['memory_max']}\n" in contents[training_slice.SLICE_FILE]
    assert shares.MARK not in "".join(contents.values())


def test_a_dry_run_shows_the_figure_and_its_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own program is asked, with a request as it travels."""
    host_of(tmp_path, monkeypatch, 60 * GIB)
    path = str(tmp_path / "training.slice")
    settings = HostSettings.model_validate({"training_slice": {"sessions_memory_max": "50%"}})
    (asked, *_) = requests(settings, [training_slice])
    wanted = [one for one in asked["resources"] if one.get("path") in (training_slice.SLICE_FILE, training_slice.SUM)]
    assert len(wanted) == 2
    measure = {"name": "training_slice", "resources": [{**one, "path": path, "slices": "none"} for one in wanted]}
    answer = converge.run({"action": "plan", "modules": ["sparkhost.training_slice.slices"], "measures": [measure]})
    cap, total = answer["plan"]["training_slice"]["changes"]
    assert f"+# In the fleet file: auto, 5/6 of this host's memory.\n+MemoryMax={50 * GIB}\n" in cap["diff"]
    assert f"+# In the fleet file: 50% of this host's memory.\n+MemoryMax={30 * GIB}\n" in total["diff"]


def test_a_request_without_shares_does_not_ask_for_the_memory() -> None:
    asked = {"text": "MemoryMax=1\n", "count": 3, "list": [None, True, "@share:"]}
    assert shares.settled(asked, lambda: pytest.fail("asked")) == asked


@pytest.mark.parametrize("profile", ["training", "serving"])
def test_the_second_floor_is_half_of_the_first(profile: str) -> None:
    def floors(**values: Any) -> list[str]:
        found = WatchdogSettings.model_validate({"profile": profile, **values}).floors
        return [str(size) if isinstance(size, Size) else str(size.of(120 * GIB) // MIB) for size in found]

    assert floors() == (["16384", "8192"] if profile == "training" else ["1GiB", "512MiB"])
    assert floors(term_below="auto", kill_below=None) == floors()
    assert floors(term_below="6GiB") == ["6GiB", "3GiB"]
    assert floors(term_below="20%") == ["24576", "12288"]


def test_floors_that_only_the_host_can_compare_are_refused_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_of(tmp_path, monkeypatch, 60 * GIB)
    term, kill = (settled(on_host(size), 60 * GIB) for size in WatchdogSettings(kill_below=Size(8 * GIB)).floors)
    with pytest.raises(
        Refused, match=r"kill_below is 8192 MiB on this host, not less than its term_below \(8192 MiB\)"
    ):
        FloorsFit(term, kill).plan(Context())


@pytest.mark.parametrize("word", ["0%", "100%", "080%", "8.5%", "-5%", "80 %", "AUTO", "16", "16GB", "half"])
def test_what_is_no_share_is_refused_with_what_is_expected(word: str) -> None:
    with pytest.raises(ValidationError, match="expected auto, a share such as 80%, or a size such as 16GiB or 512MiB"):
        TrainingSliceSettings.model_validate({"memory_max": word})


def test_auto_is_for_settings_that_have_a_rule_for_it() -> None:
    with pytest.raises(ValidationError, match="expected a share such as 80%, or a size"):
        TrainingSliceSettings.model_validate({"serving_memory_max": "auto"})


def test_shares_travel_to_the_deploy_as_they_were_written() -> None:
    words = {"memory_max": "70%", "memlock": "50%", "reserve": "8GiB"}
    settings = HostSettings.model_validate({"training_slice": words, "watchdog": {"term_below": "10%"}})
    raw = settings.model_dump(mode="json")
    assert raw["training_slice"] | words == raw["training_slice"]
    assert raw["watchdog"]["kill_below"] == raw["training_slice"]["need"] == "auto"
    assert HostSettings.model_validate(raw) == settings


@pytest.mark.parametrize(
    ("gib", "is_healthy"),
    [(1.5, False), (30, False), (54, True), (60, True), (88, False), (119.7, True), (121.7, True)],
)
def test_a_host_of_the_family_is_no_broken_one(gib: float, is_healthy: bool) -> None:
    found = host_judges.memory(seen(int(gib * GIB), gpus="1 NVIDIA GPUs\n000f:01:00.0\n"), HostSettings())
    assert (found.status is Status.PASS) == is_healthy


def seen(total: int, **texts: str) -> Evidence:
    memory = f"MemTotal:       {total // 1024} kB\n"
    return Evidence({name: Observation(name, text) for name, text in {"memory": memory, **texts}.items()})


@pytest.mark.parametrize("gib", SIZES)
def test_the_audit_expects_of_each_host_its_own_figures(gib: float) -> None:
    total = int(gib * GIB)
    wanted, other = sizes(total), sizes(total * 3)

    def cap(count: int) -> Status:
        limits = f"memory.max {count}\nmemory.swap.max 0\npids.max 9\n"
        evidence = seen(total, slice_limits=limits, slice_units="Id=training.slice\n")
        return training_slice_judges.cap(evidence, HostSettings()).status

    def sessions(count: int) -> Status:
        evidence = seen(
            total, session_caps=f"1 users\nuser.slice\tmax\nann\t1000\tann\t{count}\t-\n", session="ssh admin 1001\n"
        )
        return training_slice_judges.sessions_capped(evidence, HostSettings()).status

    assert (cap(wanted["memory_max"]), cap(other["memory_max"])) == (Status.PASS, Status.FAIL)
    assert (sessions(wanted["session_memory_max"]), sessions(other["session_memory_max"])) == (Status.PASS, Status.FAIL)
    expected = watchdog_judges.expected(HostSettings(), seen(total))
    assert (expected["term_below"], expected["kill_below"]) == (wanted["term_below"], wanted["kill_below"])


def test_tools_keep_free_what_the_watchdog_would_where_none_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host_of(tmp_path, monkeypatch, 60 * GIB)
    assert headroom.term_below(tmp_path / "none") == 8 * GIB
