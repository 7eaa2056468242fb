"""earlyoom switched off while the watchdog does its work, and put back. systemctl is a double that keeps a state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from sparkfleet.settings import WatchdogSettings
from sparkhost.base.resource import Context, Failed
from sparkhost.watchdog import replaced
from sparkhost.watchdog.replaced import Replaced, ReplacedBack
from tasks import watchdog as measure

UNIT = "earlyoom.service"
SYSTEMCTL = """#!/bin/sh
cd {folder}
case $1 in
    show) printf 'LoadState=%s\\nActiveState=%s\\nUnitFileState=%s\\n' "$(cat load)" "$(cat active)" "$(cat enabled)" ;;
    disable) echo disabled > enabled; echo inactive > active ;;
    enable) echo enabled > enabled ;;
    start) echo active > active ;;
    *) exit 9 ;;
esac
"""


class Systemd:
    """The unit's state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.be("loaded", "active", "enabled")
        (folder / "systemctl").write_text(SYSTEMCTL.format(folder=folder))
        (folder / "systemctl").chmod(0o755)

    def be(self, load: str, active: str, enabled: str) -> None:
        for name, value in (("load", load), ("active", active), ("enabled", enabled)):
            (self.folder / name).write_text(f"{value}\n")

    @property
    def now(self) -> tuple[str, str]:
        return (self.folder / "active").read_text().strip(), (self.folder / "enabled").read_text().strip()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    monkeypatch.setattr(replaced, "RECORD", tmp_path / "state" / "record.json")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Systemd(tmp_path)


@pytest.mark.parametrize(
    ("active", "enabled"), [("active", "enabled"), ("active", "disabled"), ("inactive", "enabled")]
)
def test_it_is_switched_off_and_comes_back_as_it_was(systemd: Systemd, active: str, enabled: str) -> None:
    systemd.be("loaded", active, enabled)
    assert [change.what for change in Replaced(UNIT).plan(Context())] == [UNIT]
    Replaced(UNIT).apply()
    assert systemd.now == ("inactive", "disabled")
    assert Replaced(UNIT).plan(Context()) == []
    assert ReplacedBack(UNIT).plan(Context())
    ReplacedBack(UNIT).apply()
    assert systemd.now == (active, enabled)
    assert ReplacedBack(UNIT).plan(Context()) == []
    assert not replaced.RECORD.exists()


def test_what_was_off_or_is_not_there_is_left_alone(systemd: Systemd) -> None:
    for load, active, enabled in (
        ("loaded", "inactive", "disabled"),
        ("not-found", "inactive", ""),
        ("masked", "x", "y"),
    ):
        systemd.be(load, active, enabled)
        assert Replaced(UNIT).plan(Context()) == []
    assert ReplacedBack(UNIT).plan(Context()) == []


def test_a_run_that_was_killed_half_way_forgets_nothing(systemd: Systemd) -> None:
    Replaced(UNIT).apply()
    systemd.be("loaded", "active", "disabled")  # somebody starts it again, and a deploy switches it off again
    Replaced(UNIT).apply()
    ReplacedBack(UNIT).apply()
    assert systemd.now == ("active", "enabled")


def test_where_the_watchdog_was_refused_the_other_killer_stays(systemd: Systemd, tmp_path: Path) -> None:
    assert Replaced(UNIT, only_with=str(tmp_path / "none")).plan(Context()) == []


def test_a_damaged_note_is_one_line(systemd: Systemd) -> None:
    replaced.RECORD.parent.mkdir()
    for text in ("", "[]", '{"a": 1}', "[" * 9999):
        replaced.RECORD.write_text(text)
        with pytest.raises(Failed, match="is damaged: enable what was replaced by hand"):
            ReplacedBack(UNIT).plan(Context())


def test_it_is_off_unless_asked_for_and_never_beside_a_dry_run() -> None:
    kinds = [resource.kind for resource in measure.apply(WatchdogSettings())]
    assert "replaced_killer" not in kinds
    asked = measure.apply(WatchdogSettings(replace_earlyoom=True))
    assert asked[-1] == Replaced(UNIT, only_with=measure.CONFIG)
    assert measure.remove(WatchdogSettings())[0] == ReplacedBack(UNIT)
    with pytest.raises(ValidationError, match="goes with dry_run: false"):
        WatchdogSettings(replace_earlyoom=True, dry_run=True)
