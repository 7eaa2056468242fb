"""What each lab host is: suite, architecture, and the ways it brings swap, sshd and sudo."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, replace

from tests.lab.errors import LabError

DEBIAN_SUITES = ("bookworm", "trixie")
UBUNTU_SUITES = ("noble",)
SUITES = DEBIAN_SUITES + UBUNTU_SUITES
ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}

ADMIN = "admin"
TRAINEES = ("alice", "bob")

_HOST = re.compile(r"spark([1-9][0-9]?)")


@dataclass(frozen=True)
class Profile:
    """One kind of host. The image depends on what is in it: not on `memory_mib`, `cpus`."""

    suite: str
    arch: str
    swap_file: bool
    """A swap file in /etc/fstab."""
    swap_partition: bool
    """A swap partition that only systemd-gpt-auto-generator knows of (so no swap line in /etc/fstab)."""
    zram: bool
    """A zram device from systemd-zram-generator."""
    ssh_socket: bool
    """sshd started by ssh.socket instead of ssh.service."""
    sudo_password: bool
    """sudo asks the admin for a password."""
    memory_mib: int = 1536
    cpus: int = 2
    hardware_timer: bool = False
    """A timer of Intel's 6300ESB, which qemu emulates, and a kernel with its driver."""

    @property
    def ubuntu(self) -> bool:
        return self.suite in UBUNTU_SUITES


def native_arch() -> str:
    """This machine's architecture, in Debian's words. Raises LabError on one the lab has no guests for."""
    machine = platform.machine()
    if machine not in ARCHES:
        raise LabError(f"no lab hosts for this machine's architecture {machine} (known: amd64, arm64)")
    return ARCHES[machine]


def number(name: str) -> int:
    """3 for `spark3`. Raises LabError for a name that is not sparkN."""
    match = _HOST.fullmatch(name)
    if match is None:
        raise LabError(f"no lab host can be called {name!r}: expected spark1 to spark99")
    return int(match.group(1))


def profile(name: str, *, suite: str | None = None, arch: str | None = None) -> Profile:
    """The profile of host `name`: odd numbers are like spark1, even ones like spark2.

    `suite` and `arch` replace the profile's own; `$SPARKFLEET_LAB_MEMORY` (MiB) replaces its memory;
    with `$SPARKFLEET_LAB_TIMER` it has a hardware timer.
    """
    odd = number(name) % 2 == 1
    chosen = Profile(
        suite="bookworm" if odd else "trixie",
        arch=native_arch(),
        swap_file=odd,
        swap_partition=not odd,
        zram=odd,
        ssh_socket=not odd,
        sudo_password=not odd,
    )
    if suite is not None:
        if suite not in SUITES:
            raise LabError(f"unknown suite {suite!r}: expected one of {', '.join(SUITES)}")
        chosen = replace(chosen, suite=suite)
    if arch is not None:
        if arch not in ARCHES.values():
            raise LabError(f"unknown architecture {arch!r}: expected amd64 or arm64")
        chosen = replace(chosen, arch=arch)
    timer = bool(os.environ.get("SPARKFLEET_LAB_TIMER"))
    return replace(chosen, memory_mib=_memory(chosen.memory_mib), hardware_timer=timer)


def _memory(default: int) -> int:
    text = os.environ.get("SPARKFLEET_LAB_MEMORY", "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 512:
        raise LabError(f"SPARKFLEET_LAB_MEMORY is {text!r}: expected a number of MiB, at least 512")
    return int(text)
