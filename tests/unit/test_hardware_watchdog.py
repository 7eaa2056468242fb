"""The hardware watchdog: what is asked for, and what is never touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sparkfleet.settings import HardwareWatchdogSettings, Seconds
from sparkhost.base import hardware
from sparkhost.base.files import File
from sparkhost.base.hardware import HardwareWatchdog, Sysctl, SysctlBefore, active
from sparkhost.base.resource import Context, Failed, Refused, from_json
from sparkhost.hardware_watchdog import driver as timer_driver
from sparkhost.hardware_watchdog import kept
from sparkhost.hardware_watchdog.driver import TimerDriver
from sparkhost.hardware_watchdog.main import main
from tasks import hardware_watchdog as measure


def test_it_is_off_unless_armed() -> None:
    assert measure.apply(HardwareWatchdogSettings()) == measure.remove(HardwareWatchdogSettings())


def test_it_is_armed_before_it_is_written_down_for_the_next_boot() -> None:
    made = measure.apply(HardwareWatchdogSettings(armed=True, timeout=Seconds(90), hung_task_panic=True))
    assert [from_json(resource.to_json()).kind for resource in made] == [
        "timer_driver", "hardware_watchdog", "file", "sysctl", "sysctl", "file", "installed", "file", "file", "service",
    ]  # fmt: skip
    text = "".join(resource.content for resource in made if isinstance(resource, File))
    assert "\nRuntimeWatchdogSec=90s\n" in text
    assert f"\nExecStart={measure.COMMAND} sbsa_gwdt\n" in text
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


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without a timer whose kernel has `timer_wdt` for one, and `other_wdt`, which finds none; programs are
    doubles."""
    device = tmp_path / "watchdog"
    monkeypatch.setattr(hardware, "DEVICE", device)
    monkeypatch.setattr(timer_driver, "SETTLE", 0.3)
    (tmp_path / "bin").mkdir()
    for name, text in (
        ("modinfo", 'case $3 in timer_wdt|other_wdt) echo "$3" ;; *) exit 1 ;; esac'),
        ("busctl", "echo t 0"),
        ("modprobe", f'[ "$2" != timer_wdt ] || touch {device}'),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return device


def test_the_timer_s_driver_is_loaded_where_there_is_no_timer(modules: Path) -> None:
    resource = TimerDriver("timer_wdt")
    [change] = resource.plan(Context())
    # A dry run has loaded nothing, and yet says that the timer will be armed.
    [arming] = HardwareWatchdog(60, driver="timer_wdt").plan(Context(pending=[change]))
    assert arming.summary == "arm, with 60 s (was 0 s)"
    with pytest.raises(Refused):
        HardwareWatchdog(60, driver="timer_wdt").plan(Context())
    resource.apply()
    assert resource.plan(Context()) == []
    assert TimerDriver("no_wdt").plan(Context()) == []  # whoever has brought the timer


def test_a_driver_that_the_kernel_lacks_is_refused_and_one_without_a_timer_fails(modules: Path) -> None:
    with pytest.raises(Refused, match=r"no module no_wdt: set hardware_watchdog\.driver"):
        TimerDriver("no_wdt").plan(Context())
    with pytest.raises(Failed, match="other_wdt is loaded and has found no timer"):
        TimerDriver("other_wdt").apply()


@pytest.mark.parametrize("name", ["", "a b", "../x", "-a", "X", "a;b"])
def test_a_driver_is_the_name_of_a_module(name: str) -> None:
    with pytest.raises(ValidationError):
        HardwareWatchdogSettings.model_validate({"driver": name})


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: Path) -> Path:
    """A host that its timer has reset: sysfs as the kernel has it."""
    timer = tmp_path / "class" / "watchdog0"
    timer.mkdir(parents=True)
    for name, text in (("identity", "a timer"), ("bootstatus", "32"), ("timeout", "60")):
        (timer / name).write_text(f"{text}\n")
    (tmp_path / "boot_id").write_text("b-1\n")
    monkeypatch.setattr(kept, "FILE", tmp_path / "kept.json")
    monkeypatch.setattr(kept, "BOOT_ID", tmp_path / "boot_id")
    monkeypatch.setattr(kept, "CLASS", tmp_path / "class")
    modules.touch()
    return tmp_path


def test_what_the_timer_says_is_kept_once_a_boot(boot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timer_wdt"]) == 0
    assert "it has reset this host before this boot (bootstatus 0x20)" in capsys.readouterr().err
    assert main(["timer_wdt"]) == 0
    assert capsys.readouterr().err == ""
    assert [one["boot"] for one in kept.boots()] == ["b-1"]
    (boot / "class" / "watchdog0" / "bootstatus").write_text("0\n")
    for number in range(2, 40):
        (boot / "boot_id").write_text(f"b-{number}\n")
        assert main(["timer_wdt"]) == 0
    assert [one["boot"] for one in kept.boots()] == [f"b-{number}" for number in range(20, 40)]
    assert kept.boots()[0]["timers"] == [{"name": "watchdog0", "identity": "a timer", "bootstatus": 0, "timeout": 60}]


@pytest.mark.parametrize("text", ["", "[]", '{"boots": 1}', "[" * 100_000, '{"boots": ["x"]}'])
def test_a_note_that_is_none_of_ours_is_begun_anew(boot: Path, text: str) -> None:
    kept.FILE.write_text(text)
    assert main(["timer_wdt"]) == 0
    assert [one["boot"] for one in kept.boots()] == ["b-1"]


def test_without_a_timer_the_unit_fails_with_one_line(modules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no_wdt"]) == 1
    assert "no module no_wdt" in capsys.readouterr().err


def test_what_somebody_else_armed_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs.conf").write_text("[Manager]\nRuntimeWatchdogSec=30s\n")
    for path in (tmp_path / "theirs.conf", tmp_path / "none.conf"):
        assert HardwareWatchdog(0, only_with=str(path)).plan(Context()) == []


def test_what_was_armed_at_the_boot_is_disarmed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """busctl and systemctl are doubles of PID 1 as it is: a property of 0 means what its files said when it last read
    them."""
    ours, read, set_to = tmp_path / "ours.conf", tmp_path / "read", tmp_path / "set"
    ours.write_text("# managed by sparkfleet\n[Manager]\nRuntimeWatchdogSec=30s\n")
    read.write_text("30000000")
    set_to.write_text("0")
    (tmp_path / "bin").mkdir()
    for name, text in (
        (
            "busctl",
            f"case $1 in set-property) for last; do :; done; echo $last >{set_to} ;;"
            f" *) s=$(cat {set_to}); [ $s != 0 ] || s=$(cat {read}); echo t $s ;; esac",
        ),
        ("systemctl", f'[ "$1" != daemon-reload ] || [ -e {ours} ] || echo 0 >{read}'),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    resource = HardwareWatchdog(0, only_with=str(ours))
    assert [change.summary for change in resource.plan(Context())] == ["disarm (was 30 s)"]
    resource.apply()
    assert hardware.runtime_watchdog() == 0
    assert not ours.exists()


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
