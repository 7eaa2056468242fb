"""The desktop off and back: what is noted, refused, and left to others. systemctl and loginctl are doubles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkfleet.settings import HostSettings
from sparkhost.base.pid1 import Look
from sparkhost.base.resource import Context, Failed, Refused
from sparkhost.headless import desktop, record
from sparkhost.headless.desktop import DesktopBefore, Headless

# What these programs do as far as the measure asks, on files below HOME.
SYSTEMCTL = """#!/bin/sh
root=@ROOT@
echo "$*" >>$root/calls
case $1 in
get-default) basename "$(readlink $root/default.target || echo graphical.target)" ;;
set-default) ln -sfn "/usr/lib/systemd/system/$3" $root/default.target ;;
show) echo "LoadState=$(cat $root/loaded)"; echo "ActiveState=$(cat $root/state)"
      echo "Names=display-manager.service gdm.service" ;;
stop) echo inactive >$root/state ;;
start) echo active >$root/state ;;
esac
"""
LOGINCTL = """#!/bin/sh
case $1 in
list-sessions) printf '%s\\n' '1 1000 ann seat0 tty2' '2 120 gdm seat0 tty1' '3 1001 bob - -' ;;
show-session) cat @ROOT@/session$2 ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with gdm running, its greeter on the screen, and bob logged in by SSH."""
    (tmp_path / "bin").mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("loginctl", LOGINCTL)):
        (tmp_path / "bin" / name).write_text(text.replace("@ROOT@", str(tmp_path)))
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(desktop, "LINK", tmp_path / "default.target")
    monkeypatch.setattr(desktop, "SETTLE", 0.0)
    monkeypatch.setattr(record, "RECORD", tmp_path / "headless.json")
    (tmp_path / "loaded").write_text("loaded\n")
    (tmp_path / "state").write_text("active\n")
    (tmp_path / "session1").write_text("Name=ann\nClass=user\nType=tty\n")
    (tmp_path / "session2").write_text("Name=gdm\nClass=greeter\nType=wayland\n")
    (tmp_path / "session3").write_text("Name=bob\nClass=user\nType=tty\n")
    desktop.came_back.clear()
    return tmp_path


def planned(resource: Headless | DesktopBefore) -> list[str]:
    with Look():
        return [f"{change.what}: {change.summary}" for change in resource.plan(Context())]


def test_it_is_off_unless_asked_for() -> None:
    assert HostSettings().headless.state == "absent"


def test_the_desktop_goes_and_comes_back_with_what_was_there(host: Path) -> None:
    assert planned(DesktopBefore()) == []
    assert planned(Headless()) == [
        "default.target: set to multi-user.target (was graphical.target)",
        "gdm.service: stop: the desktop ends",
    ]
    Headless().apply()
    after = Context()
    with Look():
        assert Headless().plan(after) == []
    assert after.warnings[0].endswith("MiB of memory came back from the desktop")
    assert planned(Headless()) == []
    assert (host / "state").read_text() == "inactive\n"
    assert planned(DesktopBefore()) == [
        "default.target: as it was before sparkfleet: no link in /etc",
        "gdm.service: start again",
    ]
    DesktopBefore().apply()
    assert (host / "state").read_text() == "active\n"
    assert not (host / "default.target").is_symlink()
    assert not record.RECORD.exists()


def test_a_link_of_somebody_comes_back_as_it_was(host: Path) -> None:
    (host / "default.target").symlink_to("/lib/systemd/system/graphical.target")
    Headless().apply()
    DesktopBefore().apply()
    assert str((host / "default.target").readlink()) == "/lib/systemd/system/graphical.target"


def test_what_others_have_set_since_stays(host: Path) -> None:
    Headless().apply()
    (host / "default.target").unlink()
    (host / "default.target").symlink_to("/usr/lib/systemd/system/rescue.target")
    DesktopBefore().apply()
    assert str((host / "default.target").readlink()) == "/usr/lib/systemd/system/rescue.target"


@pytest.mark.parametrize("kind", ["x11", "wayland"])
def test_nobody_s_desktop_is_ended(host: Path, kind: str) -> None:
    (host / "session1").write_text(f"Name=ann\nClass=user\nType={kind}\n")
    with pytest.raises(Refused, match=r"^ann: logged in at the desktop.*log out"):
        planned(Headless())


def test_a_run_that_was_killed_after_its_note_is_taken_back(host: Path) -> None:
    record.write(record.Before(None, "gdm.service"))
    assert planned(DesktopBefore()) == [f"{record.RECORD}: remove: all is as it was"]
    DesktopBefore().apply()
    assert planned(DesktopBefore()) == []


def test_a_second_deploy_keeps_the_first_note(host: Path) -> None:
    Headless().apply()
    (host / "state").write_text("active\n")  # somebody has started it by hand
    Headless().apply()
    assert record.read() == record.Before(None, "gdm.service")


def test_a_host_without_a_desktop_only_gets_another_target(host: Path) -> None:
    (host / "loaded").write_text("not-found\n")
    assert len(planned(Headless())) == 1
    Headless().apply()
    assert "stop" not in (host / "calls").read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"link": 1, "manager": ""}', '{"link": null, "manager": 1}'])
def test_a_damaged_note_is_one_line_with_the_remedy(host: Path, text: str) -> None:
    record.RECORD.write_text(text)
    with pytest.raises(Failed, match=r"headless\.json is damaged: .*remove it"):
        DesktopBefore().plan(Context())
