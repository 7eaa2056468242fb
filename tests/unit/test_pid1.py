"""What PID 1 is asked, and how often. systemctl is a double: it answers for what it has, and counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sparkhost.base import pid1
from sparkhost.base.pid1 import Look, microseconds, show, time_of, units_loaded_at
from sparkhost.base.resource import Failed

# As systemd 252 prints it: a block for each unit, in the order in which they were asked for.
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> {log}
while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
[ $# = 0 ] && {{ echo UnitsLoadTimestamp=; echo 'UnitsLoadStartTimestamp=Thu 2026-11-26 21:06:22.000001 UTC'; exit; }}
shift
first=1
for unit; do
  [ $first ] || echo
  first=
  [ "$unit" = lost.service ] && [ -n "$MISBEHAVES" ] && continue
  case $unit in
    nope.socket) printf 'Id=%s\nLoadState=not-found\nActiveEnterTimestamp=\n' "$unit" ;;
    *) printf 'Id=%s\nLoadState=loaded\nActiveState=%s\n' "$unit" "$(cat {state})"
       echo 'ActiveEnterTimestamp=Thu 2026-11-26 21:06:35.617194 UTC' ;;
  esac
done
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often systemctl was started; the state of all units is in the file `state`."""
    log, state, program = tmp_path / "log", tmp_path / "state", tmp_path / "systemctl"
    log.touch()
    state.write_text("active\n")
    program.write_text(SYSTEMCTL.format(log=log, state=state))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return lambda: len(log.read_text().splitlines())


def test_a_look_asks_once_for_all_units(asked: Callable[[], int]) -> None:
    with Look(["a.service", "b.service", "a.service"]):
        assert show("a.service", "ActiveState", "MainPID") == {"ActiveState": "active"}
        assert show("b.service", "LoadState") == {"LoadState": "loaded"}
        assert time_of("b.service", "ActiveEnterTimestamp") == 1795727195617194
        assert asked() == 1
        assert show("nope.socket", "LoadState") == {"LoadState": "not-found"}, "asked for when it is wanted"
        assert time_of("nope.socket", "ActiveEnterTimestamp") == 0
        assert asked() == 2
        assert units_loaded_at() == units_loaded_at() == 1795727182000001
        assert asked() == 3


def test_what_was_seen_does_not_outlive_the_look(asked: Callable[[], int], tmp_path: Path) -> None:
    with (look := Look(["a.service"])):
        assert show("a.service", "ActiveState")["ActiveState"] == "active"
    (tmp_path / "state").write_text("failed\n")
    assert show("a.service", "ActiveState")["ActiveState"] == "failed", "outside of it everything is asked anew"
    look.forget()
    with look:
        assert show("a.service", "ActiveState")["ActiveState"] == "failed"


def test_a_property_that_no_look_knows_is_asked_for(asked: Callable[[], int]) -> None:
    with Look(["a.service"]):
        assert show("a.service", "Id", "LoadState") == {"Id": "a.service", "LoadState": "loaded"}


def test_answers_that_are_too_few_are_not_given_to_the_wrong_unit(
    asked: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISBEHAVES", "1")
    with Look(["a.service", "lost.service"]), pytest.raises(Failed, match="1 answers for 2 units"):
        show("a.service", "LoadState")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Thu 1970-01-01 00:00:01.000002 UTC", 1_000_002),
        ("Fri 2026-03-27 01:30:00.999999 UTC", 1774575000999999),
        ("", 0),
        ("n/a", 0),
    ],
)
def test_times_are_microseconds(text: str, found: int) -> None:
    assert microseconds(text) == found


def test_nobody_holds_a_look_for_good() -> None:
    with pytest.raises(ValueError, match="within"), Look():
        raise ValueError("within")
    assert pid1.Look.now is None


@pytest.mark.parametrize("program", ["systemctl", "missing"])
def test_a_host_without_systemd_is_told_of_itself_and_no_measure_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """Also where the package is gone with its programs. sd_booted(3) looks for the directory."""
    monkeypatch.setattr(pid1, "BOOTED", tmp_path / "run-systemd-system")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / program).write_text("#!/bin/sh\necho cannot operate >&2\nexit 1\n")
    (tmp_path / program).chmod(0o755)
    names = [f"unit-{number}.service" for number in range(30)]
    with Look(names), pytest.raises(Failed) as failed:
        show("unit-3.service", "LoadState")
    assert str(failed.value).startswith("systemd is not PID 1 on this host (no /run/systemd/system)")
    assert len(str(failed.value)) < 150


def test_with_systemd_its_own_words_are_told_and_the_command_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pid1, "BOOTED", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="systemctl: no such command on this host"):
        show("a.service", "LoadState")
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho Access denied >&2\nexit 4\n")
    (tmp_path / "systemctl").chmod(0o755)
    with pytest.raises(Failed, match=r"^systemctl show .*\.\.\.: exit code 4: Access denied$") as failed:
        pid1.run("systemctl", "show", *(f"unit-{number}.service" for number in range(30)))
    assert len(str(failed.value)) < 150


def test_a_program_of_a_half_removed_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "docker").touch(mode=0o755)
    with pytest.raises(Failed, match=r"^docker cannot be run \(Exec format error\): is its package whole\?$"):
        pid1.run("docker", "info")
