"""The hardware watchdog: what is asked for, and what is never touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sparkfleet.settings import HardwareWatchdogSettings, Seconds
from sparkhost import hardware
from sparkhost.files import File
from sparkhost.hardware import HardwareWatchdog, Sysctl, SysctlBefore, active
from sparkhost.resource import Context, Failed, Refused, from_json
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


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` holds it up."""


@pytest.fixture
def panic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """kernel.panic, which is 438."""
    monkeypatch.setattr(hardware, "SYSCTL", tmp_path)
    monkeypatch.setattr(hardware, "RECORD", tmp_path / "record.json")
    (tmp_path / "kernel").mkdir()
    path = tmp_path / "kernel" / "panic"
    path.write_text("438\n")
    return path


BACK = SysctlBefore("kernel.panic")


def take_back() -> None:
    """As a later `remove` does."""
    if BACK.plan(Context()):
        BACK.apply()
    assert BACK.plan(Context()) == []
    assert not hardware.RECORD.exists()


def test_a_kernel_setting_comes_back_as_it_was(panic: Path) -> None:
    for value in ("30", "176", "30"):
        setting = Sysctl("kernel.panic", value)
        [change] = setting.plan(Context())
        assert change.summary.startswith(f"set to {value} (was ")
        setting.apply()
        assert setting.plan(Context()) == []
        assert panic.read_text() == f"{value}\n"
    assert [c.summary for c in BACK.plan(Context())] == ["set to 438 again, as it was before sparkfleet"]
    take_back()
    assert panic.read_text() == "438\n"
    with pytest.raises(Refused, match="no setting"):
        Sysctl("kernel.none", "1").plan(Context())


def test_what_others_have_set_since_stays(panic: Path) -> None:
    Sysctl("kernel.panic", "30").apply()
    panic.write_text("500\n")
    take_back()
    assert panic.read_text() == "500\n"


def test_what_was_so_before_us_stays_so(panic: Path) -> None:
    assert Sysctl("kernel.panic", "438").plan(Context()) == []
    assert BACK.plan(Context()) == []
    assert panic.read_text() == "438\n"


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("at_first", ["438", "30"])
def test_a_kill_at_any_point_leaves_what_a_removal_takes_back(
    panic: Path, monkeypatch: pytest.MonkeyPatch, after: int, at_first: str
) -> None:
    """Killed before the call number `after` that changes a file: in the deploy, in one with another value, or in the
    removal."""
    left = after

    def counted(name: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if name in ("write_text", "rename") or str(arguments[0]).startswith(str(panic.parents[1])):
                if left == 0:
                    raise Killed
                left -= 1
            return original(*arguments, **options)

        return call

    if at_first == "30":
        Sysctl("kernel.panic", "30").apply()
    with monkeypatch.context() as patch:
        for name in ("write_text", "replace", "unlink"):
            patch.setattr(Path, name, counted(name, getattr(Path, name)))
        try:
            Sysctl("kernel.panic", "60").apply()
            BACK.apply()
        except Killed:
            pass
    take_back()
    assert panic.read_text() == "438\n"


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, '{"a": 1}', '{"a": {"before": 1, "ours": []}}'])
def test_a_damaged_record_is_one_line_with_the_remedy(panic: Path, text: str) -> None:
    hardware.RECORD.write_text(text)
    with pytest.raises(Failed, match=r"record\.json is damaged: .*remove it"):
        BACK.plan(Context())


def test_the_kernel_says_whether_a_watchdog_counts(tmp_path: Path) -> None:
    assert not active(tmp_path)
    for number, state in enumerate(("inactive", "active")):
        (tmp_path / f"watchdog{number}").mkdir()
        (tmp_path / f"watchdog{number}" / "state").write_text(f"{state}\n")
    assert active(tmp_path)
    (tmp_path / "watchdog1" / "state").write_text("inactive\n")
    assert not active(tmp_path)
