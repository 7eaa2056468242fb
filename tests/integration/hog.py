"""Goes to lab hosts: holds or fills memory in the ways that jobs do. `python3 hog.py MIB [WORD …]`, words in any order.

`ignore`: SIGTERM does nothing. `shm`: shared memory. `tmpfs`: a file without a name in /dev/shm. `slow`: about 60 MiB a
second instead of as fast as it goes, `leak`: 4 MiB a second. `respawn`: children fill, and each that is ended is
followed by another. `swarm`: children of 40 MiB each. `memfd`: files in memory that it keeps open and does not map.
`saw`: frees three quarters when it is full, again and again; `dip`: frees all after a second, once. With everything
filled it waits.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time

MIB = 2**20
CHUNK = 4 * MIB
PAUSE = {"slow": 0.06, "leak": 1.0}


def take(words: list[str]) -> object:
    """One chunk, until the result is let go."""
    if "memfd" in words:
        descriptor = os.memfd_create("hog")
        os.write(descriptor, b"x" * CHUNK)
        return descriptor
    flags = mmap.MAP_SHARED if "shm" in words else mmap.MAP_PRIVATE
    memory = mmap.mmap(-1, CHUNK, flags=flags | mmap.MAP_ANONYMOUS)
    memory.write(b"x" * CHUNK)
    return memory


def fill(mebibytes: int, words: list[str]) -> None:
    """Fills, and waits for a signal."""
    pause = max(PAUSE.get(word, 0.0) for word in ("", *words))
    kept: list[object] = []
    if "tmpfs" in words:
        path = f"/dev/shm/hog-{os.getpid()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.unlink(path)  # noqa: PTH108 - small on a host
        for _ in range(mebibytes // 4):
            os.write(descriptor, b"x" * CHUNK)
            time.sleep(pause)
    while "tmpfs" not in words:
        while len(kept) < mebibytes // 4:
            kept.append(take(words))
            time.sleep(pause)
        if "saw" not in words and "dip" not in words:
            break
        time.sleep(1)
        del kept[0 if "dip" in words else len(kept) // 4 :]
        if "dip" in words:
            break
    signal.pause()


def child(mebibytes: int, words: list[str]) -> int:
    pid = os.fork()
    if not pid:
        fill(mebibytes, words)
        os._exit(0)
    return pid


def main() -> None:
    mebibytes, words = int(sys.argv[1]), sys.argv[2:]
    if "ignore" in words or "respawn" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "swarm" in words:
        for _ in range(mebibytes // 40):
            child(40, words)
            time.sleep(0.05)
        signal.pause()
    while "respawn" in words:
        os.waitpid(child(mebibytes, words), 0)
    fill(mebibytes, words)


if __name__ == "__main__":
    main()
