"""`spark-vllm room SHARE`: waits for this share of the host's memory. The unit calls it before each start."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from sparkhost.training_slice.slices import meminfo

WITHIN = 60.0
"""Seconds: less than a deploy waits for the start; the unit tries three times in ten minutes."""
EVERY = 1.0
GIB = 2**30


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 as soon as there is room, 1 with one line where there is none in time."""
    parser = argparse.ArgumentParser(prog="spark-vllm room", description="Waits for a share of the memory.")
    parser.add_argument("share", type=float, help="of the host's memory, 0 to 1")
    parser.add_argument("--within", type=float, default=WITHIN, help="seconds; default: %(default)s")
    options = parser.parse_args(arguments)
    until = time.monotonic() + options.within
    while True:
        found = meminfo()
        needed, available = int(options.share * found["MemTotal"]), found["MemAvailable"]
        if available >= needed:
            return 0
        if time.monotonic() >= until:
            break
        time.sleep(EVERY)
    print(
        f"spark-vllm: not started: {available / GIB:.1f} GiB of memory are available and vLLM takes "
        f"{needed / GIB:.1f}: spark-top says who holds it; where nobody does, reboot; systemctl start sparkfleet-vllm",
        file=sys.stderr,
    )
    return 1
