"""What is tried with a little GPU memory. Facts by their numbers in docs/facts.md."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.base.cgroups import cgroup_of
from sparkhost.base.units import GIB, MIB, show_size
from sparkhost.sampler.nvml import Nvml, NvmlError
from sparkhost.tools.fieldreport.report import Observation, judged, not_tried
from sparkhost.tools.profile.sample import Memory, held

CGROUPS = Path("/sys/fs/cgroup")
PATIENCE = 60.0
"""Seconds that the driver may take for anything."""
SPARE = 20 * GIB
"""What must be available beside what is tried: above the watchdog's threshold."""
NEAR = 0.25
"""How far a figure may be off the size and still count as it: other programs go on."""


class Stuck(Exception):
    """The holder does not answer, or says why it cannot. One line."""


class Libraries(NamedTuple):
    """Where CUDA and NVML are."""

    cuda: str
    nvml: str


class Holder:
    """A `holder` process."""

    def __init__(self, library: str) -> None:
        home = str(Path(__file__).resolve().parents[3])
        code = (
            f"import sys; sys.path.insert(0, {home!r});"
            " from sparkhost.tools.fieldreport.holder import main; sys.exit(main())"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", code, "--library", library], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.said = b""

    def line(self) -> dict[str, Any]:
        """Its next answer.

        Raises:
            Stuck: none in time, or a problem.
        """
        if self.process.stdout is None:
            raise Stuck("the holder has no output")
        until = time.monotonic() + PATIENCE
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self.said:
            ready, _, _ = select.select([descriptor], [], [], max(until - time.monotonic(), 0))
            data = os.read(descriptor, 4096) if ready else b""
            if not data:
                raise Stuck("the driver did not answer in time" if not ready else "the holder has ended")
            self.said += data
        text, _, self.said = self.said.partition(b"\n")
        answer: dict[str, Any] = json.loads(text)
        if "problem" in answer:
            raise Stuck(str(answer["problem"]))
        return answer

    def ask(self, line: str) -> dict[str, Any]:
        if self.process.stdin is None:
            raise Stuck("the holder has no input")
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
        except OSError as error:
            raise Stuck("the holder has ended") from error
        return self.line()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # in the driver a killed process can take its time
            self.process.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


class Figures(NamedTuple):
    """What is seen of a process from outside, in bytes; None where it cannot be seen."""

    available: int
    resident: int
    charged: int | None


def figures(memory: Memory, pid: int) -> Figures:
    charged = None
    with contextlib.suppress(OSError, ValueError):
        charged = int((CGROUPS / (cgroup_of(pid) or "/").lstrip("/") / "memory.current").read_text())
    return Figures(memory.read("MemAvailable"), held([pid]), charged)


def about(value: float, size: int) -> bool:
    return abs(value - size) <= NEAR * size


def change(size: int) -> str:
    return f"{size / MIB:+.0f} MiB"


def look(size: int, libraries: Libraries, memory: Memory) -> Iterator[Observation]:
    """All trials, with `size` bytes at a time; none where there is not enough room for them."""
    available = memory.read("MemAvailable")
    if available < 2 * size + SPARE:
        why = f"{show_size(available)} are available, {show_size(2 * size + SPARE)} are needed"
        yield not_tried(41, "CUDA memory", "is not charged to a cgroup", why)
        return
    holder = Holder(libraries.cuda)
    try:
        holder.line()
        yield from device(holder, size, libraries, memory)
        yield from cache(holder, memory)
        yield from managed(holder, size, memory)
        yield from recovery(holder, size, memory)
    except Stuck as problem:
        yield not_tried(41, "CUDA memory", "is not charged to a cgroup", str(problem))
    finally:
        holder.end()


def device(holder: Holder, size: int, libraries: Libraries, memory: Memory) -> Iterator[Observation]:
    """cudaMalloc: who sees it, and how fast it comes."""
    before = figures(memory, holder.process.pid)
    seconds = float(holder.ask(f"device {size}")["seconds"])
    after = figures(memory, holder.process.pid)
    taken = before.available - after.available
    text = f"{change(-taken)} for {show_size(size)}"
    yield judged(80, "MemAvailable and cudaMalloc", "sees it on a Spark", text, about(taken, size))
    if before.charged is None or after.charged is None:
        yield not_tried(41, "cgroup and cudaMalloc", "is not charged", "no memory.current of the process's cgroup")
    else:
        charged = after.charged - before.charged
        yield judged(41, "cgroup and cudaMalloc", "is not charged", change(charged), charged < NEAR * size)
    resident = after.resident - before.resident
    yield judged(81, "RSS and cudaMalloc", "does not see it", change(resident), resident < NEAR * size)
    rate = size / max(seconds, 1e-6) / GIB
    yield judged(82, "fill rate", "4.4 GiB/s and more", f"{rate:.1f} GiB/s, written by the GPU", rate >= 4.4)
    try:
        listed = [item.processes.get(holder.process.pid) for item in Nvml(libraries.nvml).sample()]
        bytes_ = next((value for value in listed if value is not None), None)
        saw = "does not list it" if bytes_ is None else f"{show_size(bytes_)} for {show_size(size)}"
        yield judged(83, "NVML by process", "lists it since driver 580.65", saw, (bytes_ or 0) >= (1 - NEAR) * size)
    except NvmlError as problem:
        yield not_tried(83, "NVML by process", "lists it since driver 580.65", str(problem))


def cache(holder: Holder, memory: Memory) -> Iterator[Observation]:
    """What CUDA calls free."""
    free = int(holder.ask("info")["free"])
    plain, available = memory.read("MemFree"), memory.read("MemAvailable")
    text = f"{show_size(free)}; MemFree {show_size(plain)}, MemAvailable {show_size(available)}"
    known = "leaves out page cache: it is nearer to MemFree than to MemAvailable"
    yield judged(84, "cudaMemGetInfo", known, text, abs(free - plain) <= abs(free - available))


def managed(holder: Holder, size: int, memory: Memory) -> Iterator[Observation]:
    before = figures(memory, holder.process.pid)
    holder.ask(f"managed {size}")
    after = figures(memory, holder.process.pid)
    known = "is probably charged"
    if before.charged is None or after.charged is None:
        yield not_tried(85, "cgroup and cudaMallocManaged", known, "no memory.current of the process's cgroup")
        return
    charged = after.charged - before.charged
    yield judged(85, "cgroup and cudaMallocManaged", known, change(charged), about(charged, size))


def recovery(holder: Holder, size: int, memory: Memory) -> Iterator[Observation]:
    """From SIGKILL to the end of the process, and until its memory is back."""
    before = memory.read("MemAvailable")
    begun = time.monotonic()
    holder.process.send_signal(signal.SIGKILL)
    gone = None
    while time.monotonic() - begun < PATIENCE:
        if gone is None and holder.process.poll() is not None:
            gone = time.monotonic() - begun
        if gone is not None and memory.read("MemAvailable") >= before + size:
            break
        time.sleep(0.005)
    back = time.monotonic() - begun
    known = "memory comes back after the process has ended, not at once"
    if gone is None:
        yield Observation(86, "from SIGKILL to recovery", known, f"has not ended in {PATIENCE:g} s", "otherwise")
        return
    came = back < PATIENCE
    saw = f"ended after {gone * 1000:.0f} ms, {show_size(size)} "
    saw += f"back after {back * 1000:.0f} ms" if came else f"not back in {PATIENCE:g} s (do others take it?)"
    yield Observation(86, "from SIGKILL to recovery", known, saw, "seen" if came else "otherwise")
