"""`sparkfleet-gpu-clock set MHZ`, `sparkfleet-gpu-clock reset`: on every GPU of the host."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.sampler.nvml import LIBRARY, Nvml, NvmlError

SETTLE = 5.0
"""Seconds that a clock may take to come down under load."""


def limited(nvml: Nvml, index: int, most: int) -> bool:
    """Sets the limit of a GPU; whether its clock is at or below it soon after, as far as the driver tells clocks."""
    nvml.lock_clock(index, most)
    until = time.monotonic() + SETTLE
    while (clock := nvml.clock(index)) is not None and clock > most:
        if time.monotonic() >= until:
            return False
        time.sleep(0.2)
    return True


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1, with one line, where the driver does not do it."""
    parser = argparse.ArgumentParser(prog="sparkfleet-gpu-clock", description="Limits the GPUs' clock.")
    parser.add_argument("--library", default=LIBRARY, help="default: %(default)s")
    acts = parser.add_subparsers(dest="act", required=True)
    acts.add_parser("set").add_argument("most", type=int, metavar="MHZ")
    acts.add_parser("reset")
    options = parser.parse_args(arguments)
    try:
        nvml = Nvml(options.library)
        count = nvml.count()
        if not count:
            raise NvmlError("the driver has no GPU")
        for index in range(count):
            if options.act == "reset":
                nvml.reset_clock(index)
            elif not limited(nvml, index, options.most):
                raise NvmlError(f"GPU {index} stays above {options.most} MHz: see nvidia-smi -q -d CLOCK,PERFORMANCE")
    except NvmlError as problem:
        print(f"sparkfleet-gpu-clock: {problem}", file=sys.stderr)
        return 1
    what = "the driver's own" if options.act == "reset" else f"{options.most} MHz"
    print(f"sparkfleet-gpu-clock: highest clock of {count} GPUs: {what}")
    return 0
