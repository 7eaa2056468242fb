"""A job that fills memory: `memory_hog.py --rate GIB_PER_S --threads N [--ignore-term] [--limit GIB] [--score N]`.

Standard library only, so that it runs on any host. On SIGTERM it prints CLOCK_MONOTONIC and ends, or with --ignore-term
prints it and goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import signal
import threading
import time
from pathlib import Path

GIB = 2**30
CHUNK = 64 * 2**20


def fill(budget: float, rate: float, kept: list[mmap.mmap]) -> None:
    """Touches `budget` bytes, at `rate` bytes per second (0: as fast as it goes). memset runs without the GIL."""
    began = time.monotonic()
    done = 0
    while done < budget:
        memory = mmap.mmap(-1, CHUNK)
        ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, CHUNK)
        kept.append(memory)
        done += CHUNK
        if rate:
            time.sleep(max(0.0, began + done / rate - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=1e6)
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--score", type=int, default=1000, help="oom_score_adj")
    options = parser.parse_args()
    # Whoever ranks by the kernel's score is to end one of these, and not what measures.
    Path("/proc/self/oom_score_adj").write_text(str(options.score))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    kept: list[mmap.mmap] = []
    share = options.rate * GIB / options.threads, options.limit * GIB / options.threads
    for _ in range(options.threads):
        threading.Thread(target=fill, args=(share[1], share[0], kept), daemon=True).start()
    while True:
        signal.sigwait({signal.SIGTERM})
        print(f"TERM {time.monotonic():.6f}", flush=True)
        if not options.ignore_term:
            os._exit(0)


if __name__ == "__main__":
    main()
