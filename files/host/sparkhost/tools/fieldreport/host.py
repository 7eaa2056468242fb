"""What the host says of itself, as far as it is no secret and was only reported."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sparkhost.base.units import GIB, show_size
from sparkhost.launcher.holders import meminfo
from sparkhost.tools.doctor.host import kernel_driver, library_driver
from sparkhost.tools.doctor.venv import text_of
from sparkhost.tools.fieldreport.report import Observation, judged, not_tried, seen

PACKAGES = (
    "nvidia-spark-fstab-config", "nv-env-paths", "nv-limits", "nvidia-spark-limits", "docker-ce", "docker.io", "ufw",
    "needrestart", "kdump-tools", "earlyoom", "systemd-oomd", "zram-tools", "systemd-zram-generator",
)  # fmt: skip
SWAP_FILES = ("/swap.img", "/swapfile")
PATIENCE = 10.0
KEYS = "etc/ssh"
MOST_ZONES = 32


def run(*words: str) -> str:
    """What a program of the system prints; "" where it fails or there is none."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def look(root: Path = Path("/")) -> Iterator[Observation]:
    yield from machine(root)
    yield from driver(root)
    yield from swap(root)
    yield from ssh(root)
    yield from resets(root)
    yield from ends(root)
    yield from packages(root)


def machine(root: Path) -> Iterator[Observation]:
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', text_of(root / "etc/os-release"), re.MULTILINE)
    system = release[1] if release else "unknown"
    yield judged(87, "system", "DGX OS 7 is Ubuntu 24.04", system, "24.04" in system)
    yield seen("kernel", f"{os.uname().release} {os.uname().machine}, pages of {os.sysconf('SC_PAGE_SIZE')} bytes")
    total = meminfo(root / "proc/meminfo").get("MemTotal", 0)
    fits = 119.65 * GIB <= total <= 121.75 * GIB
    # What a Spark of 64 GB has nobody has reported yet.
    named = ("MemTotal", "119.7 to 121.7 GiB with 128 GB", show_size(total))
    yield judged(88, *named, fits) if total > 64 * GIB else Observation(88, *named, "seen")
    product = text_of(root / "sys/class/dmi/id/product_name", 256).strip() or "unknown"
    yield judged(89, "DMI product name", "NVIDIA_DGX_Spark; others on twins", product, product == "NVIDIA_DGX_Spark")
    controllers = text_of(root / "sys/fs/cgroup/cgroup.controllers", 1024).strip()
    yield judged(90, "cgroup v2", "with memory", controllers or "not mounted", "memory" in controllers.split())
    pressure = (root / "proc/pressure/memory").exists()
    yield seen("memory pressure (PSI)", "there" if pressure else "not there")


def driver(root: Path) -> Iterator[Observation]:
    kernel, library = kernel_driver(root), library_driver(root)
    saw = f"loaded {kernel or 'none'}, libraries {library or 'none'}"
    yield judged(91, "driver", "580.x", saw, bool(kernel and kernel.startswith("580.")))
    if root == Path("/"):
        line = run("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
        if line:
            yield judged(92, "total memory by nvidia-smi", "N/A on a GB10", line.splitlines()[0], "N/A" in line)
        else:
            yield not_tried(92, "total memory by nvidia-smi", "N/A on a GB10", "nvidia-smi does not answer")


def swap(root: Path) -> Iterator[Observation]:
    areas = [line.split()[:3] for line in text_of(root / "proc/swaps").splitlines()[1:]]
    # A volume's name may hold the host's.
    known = [(name if name in SWAP_FILES else "another", kind, int(size) * 1024) for name, kind, size in areas]
    named = ", ".join(f"{name} ({kind}, {show_size(size)})" for name, kind, size in known) or "none is on"
    yield Observation(6, "swap", "16 GB as /swap.img or /swapfile", named, "seen")
    entries = [line.split() for line in text_of(root / "etc/fstab").splitlines() if not line.lstrip().startswith("#")]
    in_fstab = sum(len(entry) > 2 and entry[2] == "swap" for entry in entries)
    zram = any((root / place).exists() for place in ("etc/systemd/zram-generator.conf", "sys/block/zram0"))
    yield seen("sources of swap", f"{in_fstab} in fstab, zram {'there' if zram else 'not there'}")


def ssh(root: Path) -> Iterator[Observation]:
    if root == Path("/"):
        states = run("systemctl", "is-enabled", "ssh.service", "ssh.socket").splitlines()
        active = run("systemctl", "is-active", "ssh.service", "ssh.socket").splitlines()
        if len(states) == len(active) == 2:
            saw = f"service {states[0]}/{active[0]}, socket {states[1]}/{active[1]}"
            yield Observation(18, "how sshd is started", "ssh.socket since Ubuntu 22.10; unconfirmed", saw, "seen")
        else:
            yield not_tried(
                18, "how sshd is started", "ssh.socket since Ubuntu 22.10; unconfirmed", "no systemd answers"
            )
    # When the keys were made tells whether they came with the image; the keys themselves are nobody's business.
    keys = sorted((root / KEYS).glob("ssh_host_*_key.pub"))
    if keys:
        installed = (root / "etc/machine-id").stat().st_mtime if (root / "etc/machine-id").exists() else 0.0
        days = [(key.stat().st_mtime - installed) / 86400 for key in keys]
        saw = f"made {min(days):+.0f} to {max(days):+.0f} days from the machine-id's own date"
        yield Observation(93, "SSH host keys", "factory images shared keys (CVE-2026-24218)", saw, "seen")


def resets(root: Path) -> Iterator[Observation]:
    devices = sorted((root / "sys/class/watchdog").glob("watchdog*"))
    named = [f"{text_of(device / 'identity', 128).strip() or 'unnamed'}" for device in devices]
    known = "SBSA Generic Watchdog"
    yield judged(94, "hardware watchdog", known, ", ".join(named) or "none", any("SBSA" in name for name in named))
    if root == Path("/"):
        told = run("systemctl", "show", "--property=RuntimeWatchdogUSec", "--value")
        yield seen("RuntimeWatchdogSec", told or "not known")
    values = [
        f"{name} {text_of(root / 'proc/sys/kernel' / name, 32).strip() or '?'}" for name in ("panic", "hung_task_panic")
    ]
    yield seen("kernel", ", ".join(values))


def ends(root: Path) -> Iterator[Observation]:
    """What would say how a boot ended: only known of other machines."""
    timers = sorted((root / "sys/class/watchdog").glob("watchdog*/bootstatus"))
    yield seen(
        "bootstatus of the timers", ", ".join(text_of(timer, 32).strip() or "?" for timer in timers) or "no timer"
    )
    backend = text_of(root / "sys/module/pstore/parameters/backend", 64).strip()
    yield seen("where a panic leaves its log (pstore)", backend if backend not in ("", "(null)") else "nowhere")
    yield seen("journal", "on disk" if (root / "var/log/journal").is_dir() else "in memory only")
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))[:MOST_ZONES]
    heat = [f"{text_of(zone / 'type', 64).strip()} {text_of(zone / 'temp', 32).strip()}" for zone in zones]
    yield seen("thermal zones (thousandths of a degree)", ", ".join(heat) or "none")
    said = re.findall(
        r'^DGX_(?:OTA|SWBUILD)_VERSION="?([\w.+-]{1,40})', text_of(root / "etc/dgx-release"), re.MULTILINE
    )
    yield seen("releases in /etc/dgx-release", ", ".join(said[-5:]) or "none")
    if root == Path("/"):
        found = re.search(r"^CUDA Version *: *(\S+)", run("nvidia-smi", "--version"), re.MULTILINE)
        yield seen("the driver's CUDA by nvidia-smi --version", found[1] if found else "it does not say")


def packages(root: Path) -> Iterator[Observation]:
    if root != Path("/"):
        return
    listed = run("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n", *PACKAGES)
    there = sorted(line.split()[1] for line in listed.splitlines() if line.startswith("ii"))
    yield Observation(95, "packages of DGX OS", ", ".join(PACKAGES[:4]), ", ".join(there) or "none of them", "seen")
