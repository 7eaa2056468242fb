"""Arms a change to SSH: what is there is kept, and a timer and a unit for the next boot will put it back."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparkhost.base.files import make_directories, sync_directory, write_atomic
from sparkhost.base.pid1 import run
from sparkhost.ssh import unproved
from sparkhost.ssh.rollback import TIMER, is_active, program_directory, systemctl
from sparkhost.ssh.take_back_sh import SCRIPT
from sparkhost.ssh.unproved import Armed, Entry

# On the root file system, where PID 1 reads its units before /usr/local or anything else is mounted.
BOOT_UNIT = Path("/etc/systemd/system/sparkfleet-rollback-boot.service")
# What the copy on the host needs.
BASE, SSH = ("bounded", "diff", "files", "pid1", "resource"), ("rollback", "take_back_sh", "unproved")
PACKAGES = ("sparkhost", "sparkhost.base", "sparkhost.ssh")
MODULES = (*PACKAGES, *(f"sparkhost.base.{name}" for name in BASE), *(f"sparkhost.ssh.{name}" for name in SSH))
# Seconds between one try of the take-back and the next.
RETRY = 60


def boot_link() -> Path:
    """What has PID 1 start the boot unit."""
    return BOOT_UNIT.parent / "sysinit.target.wants" / BOOT_UNIT.name


def arm(token: str, paths: Iterable[Path], seconds: float, after: str = "") -> Armed:
    """Makes the host take back what follows unless it is proved within `seconds`. Nothing has changed yet.

    `after`: a line of sh that is run once the paths are back.

    All of it is on disk before the record is, whose presence makes the rest count.

    Raises:
        OSError, Failed: such as a full disk. Then nothing is armed, and nothing of this is left.
    """
    own = [Entry("own", path) for path in (boot_link(), BOOT_UNIT)]
    active = [unit for unit in ("ssh.service", "ssh.socket") if is_active(unit)]
    entries = unproved.keep(paths)
    entries += [*own, *unproved.missing_above(entry.path for entry in own)]
    try:
        program = install_program()
        start_timer(program, seconds)
        make_directories(boot_link().parent)
        write_atomic(BOOT_UNIT, boot_unit(program).encode(), 0o644)
        boot_link().unlink(missing_ok=True)
        boot_link().symlink_to(BOOT_UNIT)
        sync_directory(boot_link().parent)
        armed = Armed(token, "changing", time.time(), active, entries, after=after)
        unproved.write(armed)
    except BaseException:
        with contextlib.suppress(OSError):  # the record first: as long as it is there, so is what it needs
            unproved.withdraw()
            unproved.discard(entries)
        raise
    return armed


def start_timer(program: Sequence[str], seconds: float) -> None:
    """By CLOCK_MONOTONIC: setting the clock neither hastens nor delays it."""
    for unit in (f"{TIMER}.timer", f"{TIMER}.service"):  # of an earlier change
        systemctl("stop", unit)
    run(
        *("systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={seconds:.0f}"),
        *("--timer-property=AccuracySec=1s", "--property=Restart=on-failure", f"--property=RestartSec={RETRY}"),
        *(*program, "timer"),
    )


def install_program() -> list[str]:
    """Puts the copy of `rollback` on the host, on disk when this returns; returns the command that runs it."""
    directory = program_directory()
    for package in PACKAGES:
        make_directories(directory / package.replace(".", "/"))
    for name in MODULES:
        module = importlib.import_module(name)
        # From the request or from a disk: both kinds of loaders have the source.
        source = module.__loader__.get_source(name)  # type: ignore[union-attr]
        leaf = f"{name}.__init__" if name in PACKAGES else name
        write_atomic(directory / f"{leaf.replace('.', '/')}.py", source.encode(), 0o644)
    path = f"sys.path.insert(0, {str(directory)!r})"
    call = f"sys.exit(main({str(unproved.DIRECTORY)!r}))"
    code = f"import sys\n\n{path}\nfrom sparkhost.ssh.rollback import main\n\n{call}\n"
    write_atomic(directory / "take_back.py", code.encode(), 0o644)
    write_atomic(directory / "take-back", SCRIPT.encode(), 0o755)
    # By sh, for a /var that is mounted noexec. Not one character that needs quoting: systemd 252 escapes `;` in a
    # transient unit's file, and does not understand that when a daemon-reload has it read the file again.
    return ["/bin/sh", str(directory / "take-back")]


def boot_unit(program: Sequence[str]) -> str:
    return f"""\
# managed by sparkfleet (measure: ssh). Here only while a change to SSH is not proved yet; see docs/ssh.md.
[Unit]
Description=Take back a change to SSH that was never proved
ConditionPathExistsGlob={unproved.DIRECTORY}/record.*
DefaultDependencies=no
RequiresMountsFor={unproved.DIRECTORY} /etc /opt /usr
After=local-fs.target
Before=ssh.service ssh.socket systemd-networkd.service NetworkManager.service sockets.target shutdown.target

[Service]
Type=oneshot
ExecStart={" ".join(program)} boot
"""
