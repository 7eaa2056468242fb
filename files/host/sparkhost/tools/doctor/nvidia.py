"""GPU clocks that stay low under load. Asks the driver's own program, with a time limit: it can block."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from sparkhost.tools.doctor.finding import Finding

PROGRAM = "/usr/bin/nvidia-smi"
FIELDS = "name,clocks.sm,clocks.max.sm,utilization.gpu"
PATIENCE = 10.0
LOW = 0.5
"""Share of the highest clock under which a busy GPU is slow."""
BUSY = 50
"""Utilization in percent from which on a low clock is no idling."""


class Gpu(NamedTuple):
    """Clocks in MHz, utilization in percent."""

    name: str
    clock: int
    highest: int
    utilization: int


class Silent(Exception):
    """The program does not answer. One line."""


def ask(program: str = PROGRAM) -> list[Gpu]:
    """What it says of each GPU; those of which it does not know a figure are left out.

    Raises:
        FileNotFoundError: there is no such program, and so no driver.
        Silent: it failed, or did not answer in time.
    """
    command = [program, f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Silent(f"no answer in {PATIENCE:g} s") from error
    if result.returncode:
        said = (result.stdout + result.stderr).strip().splitlines() or ["no message"]
        raise Silent(said[-1])
    gpus = []
    for line in result.stdout.splitlines():
        name, *figures = (part.strip() for part in line.rsplit(",", 3))
        with contextlib.suppress(ValueError, TypeError):
            gpus.append(Gpu(name, *map(int, figures)))
    return gpus


def low(gpu: Gpu) -> bool:
    return gpu.utilization >= BUSY and gpu.clock < LOW * gpu.highest


def look(program: str = PROGRAM) -> Iterator[Finding]:
    """GPUs that are busy and slow; a driver that does not answer."""
    try:
        for number, gpu in enumerate(ask(program)):
            if low(gpu):
                yield Finding(
                    "clock-low",
                    "warning",
                    f"GPU {number} ({gpu.name})",
                    f"{gpu.clock} of {gpu.highest} MHz at {gpu.utilization} % utilization",
                    "reported of Sparks after some power events: the clock stays low until the power was away",
                    "shut down, unplug the power adapter for a minute, start; use the adapter that came with it",
                )
    except FileNotFoundError:
        return
    except Silent as problem:
        yield Finding(
            "driver-silent",
            "broken",
            "this host",
            f"{program}: {problem}",
            "the driver does not answer; when memory is exhausted it can block for minutes",
            "spark-top shows who holds the memory; dmesg shows what the driver said (NVRM, Xid)",
        )
