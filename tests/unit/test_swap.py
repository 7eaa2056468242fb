"""Reading /proc/swaps, and the arithmetic of a refusal."""

import os
from pathlib import Path

import pytest

from sparkfleet.settings import HostSettings
from sparkhost.base.systemd import UNIT_DIRECTORY, unit_of
from sparkhost.swap import swap
from sparkhost.swap.swap import ActiveSwap, active_swaps, overridden, refusal
from tasks import swap as swap_measure
from tasks.lib.wanted import requests

# Taken from a host with a swap file, a path with blanks, a zram device and a deleted file.
PROC_SWAPS = """\
Filename				Type		Size		Used		Priority
/swap.img                               file		131068		2048		-2
/srv/my\\040data/swap                   file		65532		0		-3
/dev/zram0                              partition	752636		0		100
/gone\\040(deleted)                     file		1024		512		-4
"""


def test_every_active_swap_is_read() -> None:
    assert active_swaps(PROC_SWAPS) == [
        ActiveSwap("/swap.img", 2048 * 1024),
        ActiveSwap("/srv/my data/swap", 0),
        ActiveSwap("/dev/zram0", 0),
        ActiveSwap("/gone", 512 * 1024),
    ]


def test_no_swap_is_an_empty_table() -> None:
    assert active_swaps("Filename\tType\tSize\tUsed\tPriority\n") == []


@pytest.mark.parametrize(
    ("used", "available", "margin", "refused"),
    [(0, 100, 100, False), (1, 100, 100, True), (50, 150, 100, False), (51, 150, 100, True), (500, 100, 0, True)],
)
def test_swapoff_is_refused_where_memory_would_not_hold_it(
    used: int, available: int, margin: int, refused: bool
) -> None:
    mib = 2**20
    reason = refusal([ActiveSwap("/swap.img", used * mib)], available * mib, margin * mib)
    assert (reason is not None) is refused
    if reason:
        assert "/swap.img" in reason
        assert f"{used} MiB" in reason
        assert f"{available} MiB" in reason
        assert f"{margin} MiB" in reason


def test_a_later_drop_in_is_found_and_an_earlier_one_is_fine() -> None:
    ours = "/etc/systemd/system/swap.d/zz-sparkfleet.conf"
    shown = (
        f"Id=a.swap\nFragmentPath=/run/a.swap\nDropInPaths={ours}\n\n"
        f"Id=b.swap\nFragmentPath=/run/b.swap\nDropInPaths=/run/systemd/system/b.swap.d/50-x.conf {ours}\n\n"
        f"Id=c.swap\nFragmentPath=/run/c.swap\nDropInPaths={ours} /etc/systemd/system/c.swap.d/zzz.conf\n\n"
        "Id=d.swap\nFragmentPath=/run/d.swap\nDropInPaths=\n\n"
        "Id=e.swap\nFragmentPath=\nDropInPaths=\n"
    )
    assert overridden(shown, ours) == [("c.swap", ["/etc/systemd/system/c.swap.d/zzz.conf"]), ("d.swap", [])]
    assert overridden("", ours) == []


@pytest.mark.parametrize(("state", "among"), [("present", False), ("absent", True)])
def test_entries_that_come_back_to_fstab_have_systemd_read_it(state: str, among: bool) -> None:
    """Its generator makes their units. No unit that is loaded tells of our drop-in: swap is off."""
    settings = HostSettings.model_validate({"swap": {"state": state}})
    [reload] = [entry for entry in requests(settings, [swap_measure]) if entry["name"] == "systemd"]
    assert ("/etc/fstab" in reload["resources"][0]["paths"]) is among


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("swap.d/zz-sparkfleet.conf", "*.swap"),
        ("ssh.service.d/oom.conf", "ssh.service"),
        ("user-.slice.d/x.conf", "user-*.slice"),
        ("x@.service", "x@*.service"),
    ],
)
def test_which_loaded_units_a_file_speaks_of(path: str, unit: str) -> None:
    assert unit_of(f"{UNIT_DIRECTORY}/{path}") == unit


def test_the_copy_of_fstab_that_is_checked_is_for_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fstab may have passwords of file servers. findmnt(8) is a double that notes the copy's mode."""
    findmnt = tmp_path / "findmnt"
    findmnt.write_text(f'#!/bin/sh\nstat -c %a "$3" >{tmp_path}/mode\ncat "$3" >{tmp_path}/seen\n')
    findmnt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(swap, "TRIAL", tmp_path / "trial")
    swap.TRIAL.write_text("of a run that was killed")
    swap.TRIAL.chmod(0o644)
    assert swap.fstab_errors(b"//nas/x /mnt cifs password=x 0 0\n") == 0
    assert (tmp_path / "mode").read_text() == "600\n"
    assert (tmp_path / "seen").read_text().startswith("//nas/x")
    assert not swap.TRIAL.exists()
