"""What is used while a step runs, looked at many times a second: a peak may last for less than a second."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sparkhost.base import gpu_sample
from sparkhost.watchdog.cgroup import Cgroups
from sparkhost.watchdog.meminfo import field
from sparkhost.watchdog.process import parse_status

GPU_EVERY = 0.5
"""Seconds between two looks at the GPU sampler's file, which is written once a second."""
GPU_STALE = 5.0


class Peaks(NamedTuple):
    """The most that was seen, in bytes; None where it cannot be seen."""

    available: int
    """The least MemAvailable: on a Spark it sees CUDA memory too."""
    before: int
    """MemAvailable when the step began."""
    processes: int
    """Anonymous and shared memory of all processes of the step together, with their GPU memory where it is known."""
    cgroup: int | None
    """memory.peak of the job's cgroup: CPU side only, page cache included."""
    gpu: int | None
    """GPU memory of the step's processes, by the sampler's file."""
    looks: int
    longest_gap: float
    """Seconds between two looks, at most: a shorter peak may have been missed."""
    seconds: float
    in_use: int | None = None
    """By PyTorch itself, with --torch: the most that was in use, of all processes together."""
    reserved: int | None = None
    """The same, reserved by its allocator."""


class Memory:
    """/proc/meminfo through one descriptor. `path`: it, or a fixture."""

    def __init__(self, path: Path = Path("/proc/meminfo")) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, name: str) -> int:
        """A value in bytes."""
        return field(os.pread(self._descriptor, 8192, 0), name.encode())

    def close(self) -> None:
        os.close(self._descriptor)


def family(pid: int) -> list[int]:
    """A process and all below it, by /proc/PID/task/TID/children (proc_pid_task_children(5))."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{one}/task"):  # noqa: PTH208 - many times a second
                with contextlib.suppress(OSError), Path(f"/proc/{one}/task/{thread}/children").open() as stream:
                    left += map(int, stream.read().split())
    return found


def held(pids: list[int]) -> int:
    """Anonymous and shared memory of processes, bytes. Memory that several map is counted for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb") as stream:  # noqa: PTH123
            _, anonymous, shared = parse_status(stream.read())
            total += anonymous + shared
    return total


class Sampler:
    """Follows one step.

    `pid`: of its first process. `find`: the step's cgroup, a path below the root; None while it is not known.
    """

    def __init__(
        self,
        pid: int,
        memory: Memory,
        find: Callable[[], str | None] = lambda: None,
        cgroups: Path = Path("/sys/fs/cgroup"),
        gpu: str = gpu_sample.PATH,
    ) -> None:
        self.pid, self.memory, self.find, self.gpu_path = pid, memory, find, gpu
        self.cgroups = Cgroups(cgroups)
        self.cgroup: str | None = None
        self.begun = self.last = time.monotonic()
        self.before = self.least = memory.read("MemAvailable")
        self.processes = 0
        self.peak: int | None = None
        self.gpu: int | None = None
        self.gpu_now = 0
        self.gpu_looked = 0.0
        self.looks = 0
        self.gap = 0.0

    def look(self) -> int:
        """One look; what is available now."""
        now = time.monotonic()
        self.gap, self.last, self.looks = max(self.gap, now - self.last), now, self.looks + 1
        available = self.memory.read("MemAvailable")
        self.least = min(self.least, available)
        if self.cgroup is None:
            self.cgroup = self.find()
        pids = self.cgroups.members(self.cgroup) if self.cgroup else family(self.pid)
        if self.cgroup:
            with contextlib.suppress(OSError, ValueError):
                self.peak = int(self.cgroups.read(self.cgroup, "memory.peak"))
        self.look_at_gpu(now, pids)
        self.processes = max(self.processes, held(pids) + self.gpu_now)
        return available

    def look_at_gpu(self, now: float, pids: list[int]) -> None:
        if now - self.gpu_looked < GPU_EVERY:
            return
        self.gpu_looked = now
        sample = gpu_sample.read(self.gpu_path, GPU_STALE)
        if not sample.problem:
            self.gpu_now = sum(sample.unified.get(pid, 0) + sample.own.get(pid, 0) for pid in pids)
            self.gpu = max(self.gpu or 0, self.gpu_now)

    def peaks(self) -> Peaks:
        return Peaks(
            available=self.least,
            before=self.before,
            processes=self.processes,
            cgroup=self.peak,
            gpu=self.gpu,
            looks=self.looks,
            longest_gap=round(self.gap, 4),
            seconds=round(time.monotonic() - self.begun, 3),
        )
