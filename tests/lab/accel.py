"""KVM or TCG: a /dev/kvm that is there may still kill or hang the guest, so only a boot is believed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

from tests.lab import cache
from tests.lab.image import Image
from tests.lab.locks import locked
from tests.lab.profiles import native_arch
from tests.lab.qemu import BINARY, acceleration, version

PROBE_SECONDS = 25.0
_PROOF = "Attempted to kill init"
"""The kernel's last word when its init ends: then kernel, initrd and user space have run under KVM."""


def choose(arch: str, image: Image) -> str:
    """`kvm` where this machine has booted the image's kernel under it, else `tcg`.

    The answer is kept per machine, kernel and qemu version; `$SPARKFLEET_LAB_ACCEL` (kvm, tcg) overrides it.
    """
    forced = os.environ.get("SPARKFLEET_LAB_ACCEL", "")
    if forced in {"kvm", "tcg"}:
        return forced
    if arch != native_arch() or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    store = cache.directory() / "accel.json"
    machine_id = Path("/etc/machine-id")
    key = " ".join([
        machine_id.read_text().strip() if machine_id.exists() else platform.node(),
        platform.release(), arch, version(arch),
    ])  # fmt: skip
    with locked(cache.directory() / "accel.lock"):
        known = _read(store)
        if key not in known:
            known[key] = "kvm" if kvm_boots(arch, image) else "tcg"
            fresh = store.with_suffix(".new")
            fresh.write_text(json.dumps(known, indent=1) + "\n")
            fresh.rename(store)
        return known[key]


def _read(store: Path) -> dict[str, str]:
    try:
        known = json.loads(store.read_text())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def probe_argv(arch: str, image: Image) -> list[str]:
    """A boot of the image's kernel under KVM whose init ends at once, so that the kernel says so and stops."""
    serial = "ttyS0" if arch == "amd64" else "ttyAMA0"
    return [
        BINARY[arch], *acceleration(arch, "kvm"), "-smp", "2", "-m", "512",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd),
        "-append", f"console={serial} rdinit=/bin/true panic=-1",
    ]  # fmt: skip


def kvm_boots(arch: str, image: Image) -> bool:
    """Try it. Takes a few seconds where KVM works, at most PROBE_SECONDS where it hangs."""
    try:
        done = subprocess.run(
            probe_argv(arch, image),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return _PROOF.encode() in done.stdout
