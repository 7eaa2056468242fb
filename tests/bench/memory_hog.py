"""A job that fills memory: `memory_hog.py --rate GIB_PER_S --threads N [--ignore-term] [--limit GIB] [--score N]`.

`--kind`: `anonymous` memory; `shared`, a memfd that nobody maps for long; `pinned`, by the CUDA driver.
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


class Anonymous:
    """Private memory of the process."""

    def __init__(self) -> None:
        self.kept: list[mmap.mmap] = []

    def take(self) -> None:
        memory = mmap.mmap(-1, CHUNK)
        touch(memory)
        self.kept.append(memory)


class Shared:
    """Files in memory that stay when they are unmapped: no process shows them, only the cgroup's charge does."""

    def take(self) -> None:
        descriptor = os.memfd_create("hog")
        os.ftruncate(descriptor, CHUNK)
        with mmap.mmap(descriptor, CHUNK) as memory:
            touch(memory)


class Pinned:
    """Locked memory for a GPU, allocated by its driver (cuMemHostAlloc)."""

    def __init__(self) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.context = ctypes.c_void_p()
        device = ctypes.c_int()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuCtxCreate_v2", ctypes.byref(self.context), 0, device)

    def call(self, name: str, *arguments: object) -> None:
        if code := self.cuda[name](*arguments):
            raise SystemExit(f"{name}: error {code}")

    def take(self) -> None:
        pointer = ctypes.c_void_p()
        self.call("cuCtxSetCurrent", self.context)
        self.call("cuMemHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(CHUNK), 0)


KINDS = {"anonymous": Anonymous, "shared": Shared, "pinned": Pinned}


def touch(memory: mmap.mmap) -> None:
    """Writes to every page. memset runs without the GIL."""
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, CHUNK)


def fill(budget: float, rate: float, memory: Anonymous | Shared | Pinned) -> None:
    """Takes `budget` bytes, at `rate` bytes per second (0: as fast as it goes)."""
    began = time.monotonic()
    done = 0
    while done < budget:
        memory.take()
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
    parser.add_argument("--kind", choices=KINDS, default="anonymous")
    options = parser.parse_args()
    # Whoever ranks by the kernel's score is to end one of these, and not what measures.
    Path("/proc/self/oom_score_adj").write_text(str(options.score))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    memory = KINDS[options.kind]()
    share = options.rate * GIB / options.threads, options.limit * GIB / options.threads
    for _ in range(options.threads):
        threading.Thread(target=fill, args=(share[1], share[0], memory), daemon=True).start()
    while True:
        signal.sigwait({signal.SIGTERM})
        print(f"TERM {time.monotonic():.6f}", flush=True)
        if not options.ignore_term:
            os._exit(0)


if __name__ == "__main__":
    main()
