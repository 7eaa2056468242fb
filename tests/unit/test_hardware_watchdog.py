"""The hardware watchdog: what is asked for, and what is never touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sparkfleet.settings import HardwareWatchdogSettings, Seconds
from sparkhost import hardware
from sparkhost.files import File
from sparkhost.hardware import HardwareWatchdog, Sysctl, active
from sparkhost.resource import Context, Refused, from_json
from tasks import hardware_watchdog as measure


def test_it_is_off_unless_armed() -> None:
    assert measure.apply(HardwareWatchdogSettings()) == measure.remove(HardwareWatchdogSettings())


def test_it_is_armed_before_it_is_written_down_for_the_next_boot() -> None:
    made = measure.apply(HardwareWatchdogSettings(armed=True, timeout=Seconds(90), hung_task_panic=True))
    assert [from_json(resource.to_json()).kind for resource in made] == [
        "hardware_watchdog", "file", "sysctl", "sysctl", "file",
    ]  # fmt: skip
    text = "".join(resource.content for resource in made if isinstance(resource, File))
    assert "\nRuntimeWatchdogSec=90s\n" in text
    assert "\nkernel.panic = 30\n" in text
    assert "\nkernel.hung_task_panic = 1\n" in text


@pytest.mark.parametrize("values", [{"timeout": Seconds(5)}, {"timeout": Seconds(20.5)}, {"panic": Seconds(0)}])
def test_times_that_would_reset_a_host_that_is_fine_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HardwareWatchdogSettings.model_validate(values)


def test_without_the_device_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "DEVICE", tmp_path / "watchdog")
    with pytest.raises(Refused, match="load its driver"):
        HardwareWatchdog(60).plan(Context())


def test_what_somebody_else_armed_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs.conf").write_text("[Manager]\nRuntimeWatchdogSec=30s\n")
    for path in (tmp_path / "theirs.conf", tmp_path / "none.conf"):
        assert HardwareWatchdog(0, only_with=str(path)).plan(Context()) == []
        assert Sysctl("kernel.panic", "0", only_with=str(path)).plan(Context()) == []


def test_a_kernel_setting_is_read_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "SYSCTL", tmp_path)
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "panic").write_text("0\n")
    setting = Sysctl("kernel.panic", "30")
    assert [change.summary for change in setting.plan(Context())] == ["set to 30 (was 0)"]
    setting.apply()
    assert setting.plan(Context()) == []
    with pytest.raises(Refused, match="no setting"):
        Sysctl("kernel.none", "1").plan(Context())


def test_the_kernel_says_whether_a_watchdog_counts(tmp_path: Path) -> None:
    assert not active(tmp_path)
    for number, state in enumerate(("inactive", "active")):
        (tmp_path / f"watchdog{number}").mkdir()
        (tmp_path / f"watchdog{number}" / "state").write_text(f"{state}\n")
    assert active(tmp_path)
    (tmp_path / "watchdog1" / "state").write_text("inactive\n")
    assert not active(tmp_path)
