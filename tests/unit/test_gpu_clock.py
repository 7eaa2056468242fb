"""The GPU's highest clock: set and reset at NVML's ABI (a double), the unit, the rule, and who is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from sparkfleet.audit.controls.gpu_clock import comes_back, in_force
from sparkfleet.audit.controls.gpu_figures import gpus
from sparkfleet.audit.model import Evidence, NoEvidence, Observation, Status
from sparkfleet.settings import GpuClockSettings, HostSettings
from sparkhost.base.files import File
from sparkhost.base.resource import Context, Refused
from sparkhost.gpu_clock.resource import HasNvml
from tasks import gpu_clock as measure
from tests.compliance.doubles import CLOCKED, RULE
from tests.doubles import nvml

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = HostSettings.model_validate({"gpu_clock": {"state": "present", "max": 2100}})
TWO = "device NVIDIA-H100 own\nclock 1980\ndevice NVIDIA-H100 own\nclock 2400\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def called(library: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from sparkhost.gpu_clock.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, "--library", str(library), *words],
        env={**os.environ, "NVML_DOUBLE": str(folder / "script")},
        cwd=ROOT / "files/host",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def limits(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in folder.glob("script.*")}


def test_every_gpu_is_limited_and_reset(library: Path, tmp_path: Path) -> None:
    (tmp_path / "script").write_text(TWO)
    done = called(library, tmp_path, "set", "2100")
    assert (done.returncode, done.stderr) == (0, "")
    assert limits(tmp_path) == {"script.0": "0 2100", "script.1": "0 2100"}
    assert called(library, tmp_path, "set", "1800").returncode == 0
    assert limits(tmp_path) == {"script.0": "0 1800", "script.1": "0 1800"}
    assert called(library, tmp_path, "reset").returncode == 0
    assert limits(tmp_path) == {}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("", "the driver has no GPU"),
        ("device GB10 unified\nfail nvmlInit_v2 9\n", "nvmlInit_v2 returned 9"),
        ("device GB10 unified\nfail nvmlDeviceSetGpuLockedClocks 3\n", "nvmlDeviceSetGpuLockedClocks returned 3"),
        ("device GB10 unified\nfail nvmlDeviceSetGpuLockedClocks 4\n", "nvmlDeviceSetGpuLockedClocks returned 4"),
    ],
)
def test_what_the_driver_does_not_do_is_one_line(library: Path, tmp_path: Path, script: str, said: str) -> None:
    (tmp_path / "script").write_text(script)
    done = called(library, tmp_path, "set", "2100")
    assert (done.returncode, done.stderr) == (1, f"sparkfleet-gpu-clock: {said}\n")


def test_a_driver_that_took_the_limit_and_does_not_keep_it_is_told(library: Path, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("device NVIDIA-H100 own\nclock 2400\n")
    (tmp_path / "script.0").symlink_to("/dev/null")  # the limit is taken, and forgotten at once
    done = called(library, tmp_path, "set", "2100")
    assert done.returncode == 1
    assert "GPU 0 stays above 2100 MHz" in done.stderr


def test_without_nvml_it_is_refused_with_the_remedy(library: Path) -> None:
    assert HasNvml(str(library)).plan(Context()) == []
    with pytest.raises(Refused, match=r"libnvidia-ml-none.so cannot be loaded.*set gpu_clock.state to absent"):
        HasNvml("libnvidia-ml-none.so").plan(Context())


def test_it_is_off_unless_asked_for() -> None:
    assert HostSettings().gpu_clock.state == "absent"


@pytest.mark.parametrize("most", [0, 209, 4001, "2100"])
def test_a_clock_that_cannot_be_meant_is_refused(most: object) -> None:
    with pytest.raises(ValidationError):
        GpuClockSettings.model_validate({"max": most})


def test_the_unit_sets_at_start_and_resets_at_stop() -> None:
    texts = {r.path: r.content for r in measure.apply(GpuClockSettings(max=1900)) if isinstance(r, File)}
    lines = texts[measure.UNIT_FILE].splitlines()
    assert f"ExecStart={measure.COMMAND} set 1900" in lines
    assert f"ExecStop=-{measure.COMMAND} reset" in lines
    assert f"restart {measure.UNIT}" in texts[measure.RULES]


def seen(**texts: str) -> Evidence:
    return Evidence({name: Observation(name, text) for name, text in texts.items()})


FIGURES = "0, 61, 2087, 3003, 97, 0x0000000000000002\n"


@pytest.mark.parametrize(
    ("units", "figures", "wanted", "said"),
    [
        (CLOCKED.format(loaded=4), FIGURES, Status.PASS, "2100 MHz set, 1 GPUs not above it"),
        (CLOCKED.format(loaded=4), FIGURES.replace("2087", "[N/A]"), Status.PASS, "2100 MHz set"),
        (CLOCKED.format(loaded=4), FIGURES.replace("2087", "2411"), Status.FAIL, "GPU 0 runs at 2411 MHz"),
        (CLOCKED.format(loaded=99000000), FIGURES, Status.FAIL, "the driver was loaded anew since"),
        (CLOCKED.format(loaded=4).replace("set 2100", "set 2600"), FIGURES, Status.FAIL, "limited to 2600 MHz"),
        (CLOCKED.format(loaded=4).replace("=active", "=inactive", 1), FIGURES, Status.FAIL, "is inactive"),
        (CLOCKED.format(loaded=4), "no GPU\n", Status.FAIL, "no GPU"),
    ],
)
def test_what_is_in_force_is_judged(units: str, figures: str, wanted: Status, said: str) -> None:
    found = in_force(seen(gpu_clock_units=units, gpu_figures=figures), SETTINGS)
    assert found.status is wanted
    assert said in found.saw


def test_another_rule_than_the_drivers_is_none() -> None:
    units = CLOCKED.format(loaded=4)
    for rules, wanted in (
        (f"1 lines\n{RULE}", Status.PASS),
        (f"1 lines\n{RULE.replace('nvidia', 'nvme')}", Status.FAIL),
    ):
        assert comes_back(seen(gpu_clock_rules=rules, gpu_clock_units=units), SETTINGS).status is wanted


@pytest.mark.parametrize("text", ["", "0, 61\n", "0, 61, 2087, 3003, 97, many\n", "-1, 1, 1, 1, 1, 0x1\n"])
def test_figures_that_are_none_are_no_evidence(text: str) -> None:
    with pytest.raises(NoEvidence):
        gpus(seen(gpu_figures=text))
