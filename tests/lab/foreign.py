"""Let this machine run programs of another architecture while an image for it is built."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab import tools
from tests.lab.errors import LabError

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_HANDLER = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}


def runs(arch: str) -> bool:
    """Whether a program of `arch` runs here now."""
    tester = tools.find("arch-test")
    return tester is not None and subprocess.run([tester, arch], capture_output=True, check=False).returncode == 0


def ensure(arch: str) -> None:
    """Mount binfmt_misc and switch qemu's handler on where that is not so yet (as root, until the next reboot).

    Raises LabError where programs of `arch` still do not run, as in a container without that right.
    """
    if runs(arch):
        return
    said = ""
    mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)]
    enable = [tools.find("update-binfmts") or "update-binfmts", "--enable", _HANDLER[arch]]
    for command in ([] if (_BINFMT / "register").exists() else [mount]) + [enable]:
        done = subprocess.run([*tools.as_root(), *command], capture_output=True, text=True, check=False)
        if done.returncode:
            said = f"{said} {done.stderr.strip()}"
    if not runs(arch):
        raise LabError(
            f"this machine cannot run {arch} programs, so it cannot build such a host:{said or ' no reason'}"
        )
