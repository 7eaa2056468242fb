"""The sampler's loop: a sample, an atomic file, a sign of life to systemd."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparkhost.base import small_files
from sparkhost.base.gpu_sample import LARGEST
from sparkhost.sampler.heat import Heats
from sparkhost.sampler.nvml import LIBRARY, Nvml, NvmlError, NvmlMissing
from sparkhost.watchdog.postmortem import replace
from sparkhost.watchdog.survive import Supervisor

VERSION = 1
PATIENCE = 10.0
"""Seconds between two looks for a library that is missing."""


def write(path: Path, devices: list[dict[str, object]], error: str | None) -> None:
    """Replaces the file in one step. `boottime`: CLOCK_BOOTTIME goes on while the host sleeps, as staleness does."""
    sample = {
        "version": VERSION,
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
        "error": error,
        "devices": devices,
    }
    replace(path, json.dumps(sample).encode(), 0o644)


def before(path: Path) -> Any:
    """The devices of the last sample; None where there is none. The file is gone after a boot."""
    try:
        return json.loads(small_files.read(str(path), LARGEST))["devices"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def opened(options: argparse.Namespace, supervisor: Supervisor) -> Nvml:
    """NVML, as soon as there is one. A host without a GPU is no failure, and no reason to start over and over.

    Raises:
        NvmlError: it does not answer as it should; with `--once`, also that it is missing.
    """
    said = False
    while True:
        try:
            return Nvml(options.library)
        except NvmlMissing as problem:
            if options.once:
                raise
            if not said:
                print(f"sparkfleet-gpu-sampler: {problem}; it is looked for every {PATIENCE:g} s", file=sys.stderr)
                said = True
            write(options.file, [], str(problem))
            supervisor.tell("WATCHDOG=1")
            time.sleep(PATIENCE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Goes on until NVML fails: a driver that was reloaded needs a new process, as this one keeps the old library.

    Exit code 1 then, and systemd starts the next one.
    """
    parser = argparse.ArgumentParser(prog="sparkfleet-gpu-sampler", description="Writes GPU memory by process.")
    parser.add_argument(
        "--file", type=Path, default=Path("/run/sparkfleet/gpu/sample.json"), help="default: %(default)s"
    )
    parser.add_argument("--every", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--library", default=LIBRARY, help="default: %(default)s")
    parser.add_argument("--once", action="store_true", help="one sample, to standard output as well")
    options = parser.parse_args(arguments)
    options.file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    supervisor = Supervisor()
    supervisor.tell("READY=1")
    try:
        heats, last = Heats(before(options.file)), time.monotonic()
        nvml = opened(options, supervisor)
        while True:
            devices, now = nvml.sample(), time.monotonic()
            write(options.file, heats.saw(devices, now - last), None)
            last = now
            supervisor.tell("WATCHDOG=1")
            if options.once:
                print(options.file.read_text())
                return 0
            time.sleep(options.every)
    except NvmlError as problem:
        write(options.file, [], str(problem))
        print(f"sparkfleet-gpu-sampler: {problem}", file=sys.stderr)
        return 1
