"""Starts the guards that are compared: our daemon, earlyoom; and reads what they cost. Standard library only."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "files" / "host"
GIB = 2**30
NAME = "watchdog-bench"


def meminfo(name: str = "MemAvailable") -> int:
    with open("/proc/meminfo", "rb") as file:  # noqa: PTH123 - many times a second
        text = file.read()
    start = text.index(name.encode() + b":") + len(name) + 1
    return int(text[start : text.index(b"kB", start)]) * 1024


@dataclass(frozen=True)
class Limits:
    """Bytes."""

    term_below: int
    kill_below: int


@contextlib.contextmanager
def watchdog(
    limits: Limits,
    folder: Path,
    *,
    far: float = 1.0,
    gpu: str = "never",
    code: Path = HOST,
    cgroup_root: Path = Path("/sys/fs/cgroup"),
    more: str = "",
) -> Iterator[subprocess.Popen[bytes]]:
    """Our daemon, ready. `code`: the files/host of the checkout whose daemon it is."""
    config = folder / "watchdog.toml"
    thresholds = f'term_below = "{limits.term_below}B"\nkill_below = "{limits.kill_below}B"\n'
    config.write_text(f'{thresholds}far = {far}\ngpu_memory = "{gpu}"\n{more}')
    address = folder / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(20)
        places = {
            "config": config,
            "state-dir": folder / "state",
            "run-dir": folder / "run",
            "gpu-file": folder / "gpu.json",
            "cgroup-root": cgroup_root,
        }
        words = [f"--{name}={path}" for name, path in places.items()]
        with ended(
            subprocess.Popen(
                [sys.executable, "-m", "sparkhost.watchdog", *words, "run"],
                env={**os.environ, "PYTHONPATH": str(code), "NOTIFY_SOCKET": str(address)},
            )
        ) as process:
            while b"READY=1" not in listener.recv(4096):
                pass
            yield process


@contextlib.contextmanager
def earlyoom(limits: Limits, program: str) -> Iterator[subprocess.Popen[bytes]]:
    kib = f"{limits.term_below // 1024},{limits.kill_below // 1024}"
    words = [program, "-M", kib, "-s", "100", "-r", "0", "--avoid", f"^{NAME}$"]
    with ended(subprocess.Popen(words, stderr=subprocess.DEVNULL)) as process:
        time.sleep(0.5)  # it has no way to say that it is ready
        yield process


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def major_faults_of(pid: int) -> int:
    """How often a process has waited for a page from a disk (proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[9])
