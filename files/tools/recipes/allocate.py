# managed by sparkfleet (measure: tools)
"""A run without a GPU that allocates by its batch, as training does: to try spark-profile, anywhere.

    allocate.py BATCH [MIB_BY_SAMPLE] [MIB_BASE]

Holds the base, then three times base and batch together, each touched and given back: a short peak, as a step of
training has it. Standard library only.
"""

from __future__ import annotations

import mmap
import sys
import time

MIB = 2**20
DEFAULTS = ("16", "32")
HELD = 0.2
"""Seconds that a peak lasts."""


def touched(mib: int) -> mmap.mmap | None:
    """Memory that is really there: a byte of each page is written."""
    if mib == 0:
        return None
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, mib * MIB, mmap.PAGESIZE):
        memory[at] = 1
    return memory


def main() -> int:
    words = sys.argv[1:]
    if not 1 <= len(words) <= 3 or not all(word.isdecimal() for word in words):
        print("allocate.py: expected BATCH [MIB_BY_SAMPLE] [MIB_BASE], whole numbers", file=sys.stderr)
        return 2
    batch, by_sample, base = (int(word) for word in [*words, *DEFAULTS[len(words) - 1 :]])
    kept = touched(base)
    for step in range(3):
        activations = touched(batch * by_sample)
        print(f"step {step}", flush=True)
        time.sleep(HELD)  # the work of a step
        if activations is not None:
            activations.close()
    if kept is not None:
        kept.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
