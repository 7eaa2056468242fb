"""Heat and stuck clocks: what the sampler keeps (a double of NVML), what the observer says, what the audit judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparkfleet.audit.controls import heat as judges
from sparkfleet.audit.model import Evidence, Observation, Status
from sparkfleet.settings import HostSettings
from sparkhost.observer.heat import alarms
from sparkhost.sampler.heat import Heats
from sparkhost.sampler.nvml import Device
from sparkhost.watchdog.metrics import of_gpus
from tests.doubles import nvml

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = HostSettings()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def sampled(library: Path, folder: Path, script: str) -> list[dict[str, object]]:
    """The devices that one run of the sampler writes, over what is there."""
    (folder / "script").write_text(script)
    words = ["--library", str(library), "--file", str(folder / "sample.json"), "--once"]
    subprocess.run(
        [sys.executable, "-m", "sparkhost.sampler", *words],
        env={**os.environ, "NVML_DOUBLE": str(folder / "script")},
        cwd=ROOT / "files/host",
        capture_output=True,
        timeout=60,
        check=True,
    )
    found: list[dict[str, object]] = json.loads((folder / "sample.json").read_text())["devices"]
    return found


def test_the_highest_temperature_outlives_the_sampler(library: Path, tmp_path: Path) -> None:
    [first] = sampled(library, tmp_path, "device H100 own\nclock 1900\nheat 88 97 64\n")
    assert (first["temperature"], first["busy"], first["reasons"], first["hottest"]) == (88, 97, 64, 88)
    [second] = sampled(library, tmp_path, "device H100 own\nclock 1900\nheat 60 97 0\n")
    assert (second["temperature"], second["hottest"]) == (60, 88)


def test_what_the_driver_does_not_tell_is_left_out(library: Path, tmp_path: Path) -> None:
    [device] = sampled(library, tmp_path, "device GB10 unified\ncompute 11 5\n")
    assert (device["temperature"], device["busy"], device["reasons"], device["hottest"]) == (None, None, None, None)
    assert device["processes"] == {"11": 5}


def seen(degrees: int | None = 60, busy: int | None = 90, reasons: int = 0, clock: int | None = 2000) -> Device:
    return Device("GB10", True, {}, clock, 3000, degrees, busy, reasons)


def test_time_is_counted_and_a_low_clock_only_in_one_stretch() -> None:
    heats = Heats()
    for _ in range(3):
        heats.saw([seen(reasons=0x40)], 1.0)
    heats.saw([seen(reasons=0x4)], 1.0)  # a cap of power is no heat
    [heat] = heats.by_number
    assert (heat.slowed, heat.low) == (3.0, 0.0)
    for _ in range(5):
        heats.saw([seen(clock=800)], 1.0)
    assert heats.by_number[0].low == 5.0
    heats.saw([seen(clock=800, busy=10)], 1.0)  # an idle GPU has a low clock
    assert heats.by_number[0].low == 0.0
    heats.saw([seen(reasons=0x20)], 7200.0)  # a host that slept was not hot all the time
    assert heats.by_number[0].slowed == 63.0


@pytest.mark.parametrize("before", [None, 3, [None], [{"hottest": "x", "slowed": True}], [{}]])
def test_a_last_sample_of_another_kind_is_no_history(before: object) -> None:
    [device] = Heats(before).saw([seen(70)], 1.0)
    assert (device["hottest"], device["slowed"]) == (70, 0.0)


def sample(path: Path, *devices: dict[str, object], age: float = 1.0) -> str:
    now = time.clock_gettime(time.CLOCK_BOOTTIME) - age
    path.write_text(json.dumps({"version": 1, "boottime": now, "error": None, "devices": devices}))
    return str(path)


def test_the_observer_warns_of_heat_and_of_a_stuck_clock(tmp_path: Path) -> None:
    path = sample(
        tmp_path / "s",
        {"temperature": 84, "low": 59.0},
        {"temperature": 85, "low": 0.0},
        {"temperature": None, "low": 60.5},
    )
    assert [(alarm.kind, alarm.about) for alarm in alarms(path, 30.0)] == [("heat", "1"), ("clock_low", "2")]
    assert list(alarms(sample(tmp_path / "s", {"temperature": 99}, age=60.0), 30.0)) == []


def test_they_are_metrics(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sample(path, {"temperature": 61, "hottest": 78, "slowed": 1.5, "low": 0.0, "reasons": 2}, {"temperature": None})
    found = {name: samples for name, _, _, samples in of_gpus(path)}
    assert found["sparkfleet_gpu_temperature_highest_celsius"] == [('{gpu="0"}', 78)]
    assert found["sparkfleet_gpu_thermal_slowdown_seconds_total"] == [('{gpu="0"}', 1.5)]
    assert found["sparkfleet_gpu_temperature_celsius"] == [('{gpu="0"}', 61)]


def evidence(**texts: str) -> Evidence:
    return Evidence({name: Observation(name, text) for name, text in texts.items()})


FIGURES = "0, 61, 2405, 3003, 97, 0x0\n"


@pytest.mark.parametrize(
    ("slowed", "figures", "status"),
    [
        ("0, 0, 0\n", FIGURES, Status.PASS),
        ("0, 0, 99999\n", FIGURES, Status.PASS),
        ("0, 60000, 60000\n", FIGURES, Status.FAIL),
        ("0, [N/A], [N/A]\n", FIGURES, Status.PASS),
        ("0, 0, 0\n", FIGURES.replace("0x0", "0x40"), Status.FAIL),
        ("0, 0, 0\n", FIGURES.replace("0x0", "0x4"), Status.PASS),
        ("unknown\n", FIGURES, Status.NOT_APPLICABLE),
        ("no GPU\n", "no GPU\n", Status.NOT_APPLICABLE),
    ],
)
def test_being_slowed_for_heat_is_judged(slowed: str, figures: str, status: Status) -> None:
    assert judges.not_slowed(evidence(gpu_slowed=slowed, gpu_figures=figures), SETTINGS).status is status


@pytest.mark.parametrize(
    ("figures", "limit", "status"),
    [
        (FIGURES, None, Status.PASS),
        ("0, 48, 806, 3003, 96, 0x0\n", None, Status.FAIL),
        ("0, 48, 208, 3003, 0, 0x1\n", None, Status.PASS),  # idle
        ("0, 48, 1400, 3003, 96, 0x0\n", None, Status.FAIL),
        ("0, 48, 1400, 3003, 96, 0x2\n", 2100, Status.PASS),  # of the limit that the fleet file sets
        ("0, 48, [N/A], 3003, 96, 0x0\n", None, Status.PASS),
    ],
)
def test_a_clock_stuck_low_is_judged(figures: str, limit: int | None, status: Status) -> None:
    own = {"gpu_clock": {"state": "present", "max": limit}} if limit else {}
    assert judges.full_clock(evidence(gpu_figures=figures), HostSettings.model_validate(own)).status is status


@pytest.mark.parametrize(
    ("figures", "kept", "status", "saw"),
    [
        (FIGURES, '{"devices": [{"hottest": 84}]}', Status.PASS, "GPU 0: 61 now, 84 at most"),
        (FIGURES, '{"devices": [{"hottest": 85}]}', Status.FAIL, "GPU 0: 61 now, 85 at most"),
        (FIGURES.replace("61", "86"), '{"devices": []}', Status.FAIL, "GPU 0: 86 now"),
        (FIGURES, "no file\n", Status.PASS, "GPU 0: 61 now"),
        (FIGURES.replace("61", "[N/A]"), "no file\n", Status.NOT_APPLICABLE, "no GPU tells its temperature"),
    ],
)
def test_temperatures_now_and_highest_are_judged(figures: str, kept: str, status: Status, saw: str) -> None:
    found = judges.not_hot(evidence(gpu_figures=figures, gpu_sample=kept), SETTINGS)
    assert (found.status, found.saw) == (status, saw)
