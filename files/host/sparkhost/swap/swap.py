"""Swap off now (`SwapOff`) and at every boot (`FstabSwap`), without endangering what is running."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from sparkhost.base import bounded
from sparkhost.base.diff import text_diff
from sparkhost.base.files import keep_backup, make_directories, write_atomic
from sparkhost.base.pid1 import run, unit_property
from sparkhost.base.resource import Check, Context, Failed, Refused, Resource, Step
from sparkhost.swap import fstab
from sparkhost.training_slice.slices import meminfo

FSTAB = Path("/etc/fstab")
# Which swaps we turned off, so that removal knows whether there is something to start again.
TURNED_OFF = Path("/var/lib/sparkfleet/swaps-turned-off")
TRIAL = Path("/run/sparkfleet-fstab")
MIB = 2**20


@dataclass(frozen=True)
class ActiveSwap:
    """A line of /proc/swaps (proc_swaps(5)); sizes in bytes."""

    device: str
    used: int


def active_swaps(text: str) -> list[ActiveSwap]:
    """What /proc/swaps lists. Blanks in a name are octal escapes there; a deleted file has a suffix. Raises Failed."""
    swaps = []
    for line in text.splitlines()[1:]:
        try:
            name, _kind, _size, used, _priority = line.rsplit(None, 4)
            in_use = int(used) * 1024
        except ValueError as error:
            raise Failed(f"/proc/swaps has a line of another form than proc_swaps(5) says: {line[:80]!r}") from error
        name = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)
        swaps.append(ActiveSwap(name.removesuffix(" (deleted)"), in_use))
    return swaps


def read_swaps() -> list[ActiveSwap]:
    return active_swaps(bounded.read_text(Path("/proc/swaps")))


def memory_available() -> int:
    """MemAvailable in bytes (proc_meminfo(5))."""
    return meminfo()["MemAvailable"]


def refusal(swaps: Sequence[ActiveSwap], available: int, margin: int) -> str | None:
    """Why these swaps cannot be turned off now, or None. Pages in swap must fit into memory, with a margin.

    A swapoff that does not fit drives the host into the freeze that this project exists to prevent.
    """
    used = sum(swap.used for swap in swaps)
    if available - used >= margin:
        return None
    names = ", ".join(swap.device for swap in swaps)
    return (
        f"swapoff refused: {used // MIB} MiB are in use on {names}, but MemAvailable is {available // MIB} MiB "
        f"and {margin // MIB} MiB must stay free (swap.margin): stop jobs or reboot, then deploy again"
    )


@dataclass(frozen=True)
class SwapOff(Resource):
    """No active swap. `margin`: bytes of MemAvailable that must be left when everything is back in memory.

    After systemd knows that swap units must not start: until then every unit that is started, a login's too, pulls them
    in again by way of sysinit.target and swap.target (seen on Debian 12).
    """

    kind: ClassVar[str] = "swapoff"
    after_reload: ClassVar[bool] = True
    margin: int

    def steps(self, context: Context) -> Iterator[Step]:
        swaps = read_swaps()
        if swaps and (reason := refusal(swaps, memory_available(), self.margin)):
            raise Refused(reason)
        # The emptiest first: each one that is off leaves less to go wrong.
        for swap in sorted(swaps, key=lambda swap: swap.used):
            yield Step(swap.device, f"swapoff ({swap.used // MIB} MiB in use)", partial(self._turn_off, swap))

    def _turn_off(self, swap: ActiveSwap) -> None:
        if reason := refusal([swap], memory_available(), self.margin):
            raise Refused(reason)
        remember(swap.device)
        swapoff(swap, self.margin)


def turned_off() -> list[str]:
    """The devices of swaps that we turned off."""
    return bounded.read_text(TURNED_OFF).splitlines() if TURNED_OFF.exists() else []


def remember(device: str) -> None:
    """Adds a device to the list of swaps that we turned off."""
    known = turned_off()
    if device not in known:
        make_directories(TURNED_OFF.parent)
        write_atomic(TURNED_OFF, "".join(f"{name}\n" for name in [*known, device]).encode(), 0o644)


def swapoff(swap: ActiveSwap, margin: int) -> None:
    """Turns one swap off, and gives up while there is still room, should jobs grow meanwhile.

    swapoff(2) can be interrupted between pages: the swap then simply stays on.

    Raises:
        Refused: MemAvailable fell below half of `margin` on the way.
        Failed: swapoff(8) said no.
    """
    process = subprocess.Popen(["swapoff", "--", swap.device], stderr=subprocess.PIPE, text=True)
    interrupted = False
    while process.poll() is None:
        if not interrupted and memory_available() < margin // 2:
            process.send_signal(signal.SIGINT)
            interrupted = True
        time.sleep(0.05)
    _, message = process.communicate()
    if process.returncode == 0:
        return
    if interrupted:
        raise Refused(
            f"swapoff of {swap.device} stopped half-way: MemAvailable fell below {margin // 2 // MIB} MiB "
            "(half of swap.margin); the swap is still on: stop jobs or reboot, then deploy again"
        )
    raise Failed(f"swapoff {swap.device}: {' '.join(message.split()) or f'exit code {process.returncode}'}")


@dataclass(frozen=True)
class FstabSwap(Resource):
    """Swap entries of /etc/fstab: commented out (`off`), or active again (`restored`)."""

    kind: ClassVar[str] = "fstab_swap"
    wanted: Literal["off", "restored"]

    def _edit(self, content: bytes) -> tuple[bytes, list[int]]:
        return fstab.comment_out(content) if self.wanted == "off" else fstab.put_back(content)

    def unit_sources(self) -> Sequence[str]:
        # What is commented out needs no unit to be gone at once: its drop-in keeps it from being started.
        return (str(FSTAB),) if self.wanted == "restored" else ()

    def steps(self, context: Context) -> Iterator[Step]:
        if not FSTAB.exists():
            return
        old = bounded.read(FSTAB)
        new, numbers = self._edit(old)
        verb = "comment out" if self.wanted == "off" else "activate again"
        lines = ", ".join(str(number) for number in numbers)
        summary = f"{verb} the swap {'entry' if len(numbers) == 1 else 'entries'} in line {lines}"
        if numbers:
            yield Step(str(FSTAB), summary, self._rewrite, text_diff(str(FSTAB), old, new))

    def _rewrite(self) -> None:
        # /etc/fstab may be a link (to a file under /etc/static, say): the file is replaced, not the link.
        path = FSTAB.resolve()
        status = path.stat()
        old = bounded.read(path)
        new, _ = self._edit(old)
        check_fstab(old, new)
        if self.wanted == "off":
            keep_backup(FSTAB)
        if bounded.read(path) != old:
            raise Failed(f"{FSTAB} was changed by somebody else at this moment: deploy again")
        write_atomic(path, new, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def check_fstab(old: bytes, new: bytes) -> None:
    """Refuses a new fstab in which findmnt(8) --verify finds more errors than in the old one.

    The old one may well have some already, such as the absent device of a `nofail` entry.

    Raises:
        Failed: with the counts.
    """
    before, after = fstab_errors(old), fstab_errors(new)
    if after > before:
        raise Failed(f"{FSTAB} not touched: findmnt --verify finds {after} errors in the new file, {before} in the old")


def fstab_errors(content: bytes) -> int:
    """Parse errors and errors that `findmnt --verify` counts in a table. An empty table has none."""
    # fstab may be for root's eyes (passwords of CIFS): so is the copy. One of a killed run is written over.
    write_atomic(TRIAL, content, 0o600)
    try:
        result = bounded.call(["findmnt", "--verify", "--tab-file", str(TRIAL)], seconds=60)
    finally:
        TRIAL.unlink()
    output = result.stdout + result.stderr
    if match := re.search(r"(\d+) parse errors?, (\d+) errors?", output):
        return int(match[1]) + int(match[2])
    if result.returncode == 0:
        return 0
    raise Failed(f"{FSTAB} not touched: findmnt --verify cannot check it: {' '.join(output.split())[:200]}")


@dataclass(frozen=True)
class SwapGuard(Check):
    """Asks PID 1 whether the condition that keeps swap off holds for every swap unit that it knows.

    A drop-in of a later name can take it back. That is somebody's wish, in somebody's file: it is not
    deleted but reported.
    """

    kind: ClassVar[str] = "swap_guard"
    after_reload: ClassVar[bool] = True
    drop_in: str
    """Path of our drop-in for all swap units."""
    condition: str
    """The path that its `ConditionPathExists=` looks for."""

    def check(self, context: Context) -> None:
        if context.pending:
            return  # a dry run has neither written the drop-in nor reloaded: PID 1 cannot know it yet
        for unit, others in overridden(
            run("systemctl", "show", "--all", "-p", "Id,FragmentPath,DropInPaths", "*.swap"), self.drop_in
        ):
            if self.condition not in conditions(unit):
                raise Refused(
                    f"{unit} can start at boot: {', '.join(others) or 'something'} overrides {self.drop_in}: "
                    "remove it, or set swap.mode to keep"
                )


def overridden(text: str, drop_in: str) -> list[tuple[str, list[str]]]:
    """Swap units in which our drop-in is not the last word, with the drop-ins that come after it.

    `text`: what `systemctl show -p Id,FragmentPath,DropInPaths` printed; drop-ins are listed in the order of reading.
    """
    found = []
    for block in text.strip().split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        drop_ins = properties.get("DropInPaths", "").split()
        # Without a file of its own a unit cannot start: only its name is known (another's `After=`), or it stood for a
        # swap that was on, and has no drop-ins.
        if properties.get("FragmentPath") and drop_ins[-1:] != [drop_in]:
            after = drop_ins[drop_ins.index(drop_in) + 1 :] if drop_in in drop_ins else drop_ins
            found.append((properties.get("Id", "?"), after))
    return found


def conditions(unit: str) -> str:
    """The conditions of a unit as PID 1 holds them. `systemctl show` prints them as "[unprintable]" (252 to 257)."""
    return unit_property(unit, "Unit", "Conditions")


@dataclass(frozen=True)
class SwapOn(Resource):
    """Starts the swap units again, once, whose swap sparkfleet had turned off on this host."""

    kind: ClassVar[str] = "swap_on"
    after_reload: ClassVar[bool] = True

    def steps(self, context: Context) -> Iterator[Step]:
        if TURNED_OFF.exists():
            yield Step("swap", f"start again: {', '.join(turned_off())}", self._start)

    def _start(self) -> None:
        devices = turned_off()
        TURNED_OFF.unlink()  # once: what cannot be started now is not ours to try for ever
        failures = []
        try:
            # Brings in every swap unit of the boot; systemd 257 names some by-diskseq, which no device's name tells.
            run("systemctl", "start", "swap.target")
        except Failed as failure:
            # One whose file is gone, say, fails the target; the others start all the same.
            lines = run("systemctl", "list-units", "--type=swap", "--state=failed", "--plain", "--no-legend")
            names = [line.split()[0] for line in lines.splitlines()]
            failures += [f"{name} does not start: see `systemctl status {name}`" for name in names] or [str(failure)]
        units = [run("systemd-escape", "--path", "--suffix=swap", device).strip() for device in devices]
        # What was turned on by hand has no unit to start: that was never going to survive a reboot.
        known = [unit for unit in units if run("systemctl", "show", "-p", "FragmentPath", "--value", unit).strip()]
        for unit in known:
            try:
                run("systemctl", "start", unit)
            except Failed as failure:
                failures.append(str(failure))
        if failures:
            raise Failed("; ".join(failures))
