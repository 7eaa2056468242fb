"""SHA-256 of tens of thousands of files, on all cores.

Processes, not threads: opening a file and handing on its hash hold the interpreter's lock, and a stack is small files
mostly. Forked ones, not `concurrent.futures`: its workers outlive a parent that is killed, and with them the locks that
they have inherited from it.
"""

from __future__ import annotations

import heapq
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from sparkhost.base.files import digest

AT_ONCE = 16
"""Most processes that hash at a time. Each holds the paths and hashes of its share, and 256 KiB of one file."""
OVERHEAD = 32 * 1024
"""What opening and closing a file costs, in bytes hashed meanwhile; only the shares' balance hangs on it."""
ARROW = "-> "
"""Begins what stands for the hash of a symbolic link: where it leads."""


def hashes(root: Path, paths: Sequence[str], at_once: int = 0) -> dict[str, str]:
    """SHA-256 of regular files, the target of links; in the order of the paths.

    `at_once`: how many processes; 0: one for each core that this one may use. The share of one that dies or fails is
    hashed here, so that what is told is whole or is an error.

    Raises:
        OSError: a file cannot be read.
    """
    count = at_once or min(len(os.sched_getaffinity(0)), AT_ONCE)
    own, *others = shares(root, paths, count)
    workers = []
    try:
        workers += [Worker(root, share) for share in others]
        found = dict(zip(own, (one(root, path) for path in own), strict=True))
        for worker in workers:
            found |= worker.result()
    finally:
        for worker in workers:
            worker.end()
    return {path: found[path] for path in paths}


def one(root: Path, path: str) -> str:
    where = root / path
    return f"{ARROW}{where.readlink()}" if where.is_symlink() else digest(where)


def shares(root: Path, paths: Sequence[str], count: int) -> list[list[str]]:
    """The paths in up to `count` parts of about the same work: the largest file first, to who has least."""
    sizes = sorted(((os.lstat(root / path).st_size, path) for path in paths), reverse=True)
    parts: list[list[str]] = [[] for _ in range(max(1, min(count, len(paths))))]
    loads = [(0, number) for number in range(len(parts))]
    for size, path in sizes:
        load, number = loads[0]
        parts[number].append(path)
        heapq.heapreplace(loads, (load + size + OVERHEAD, number))
    return parts


class Worker:
    """A forked process with a share."""

    def __init__(self, root: Path, share: Sequence[str]) -> None:
        self.root, self.share = root, share
        parent = os.getpid()
        self.output, inlet = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._work(parent, inlet)
        os.close(inlet)

    def _work(self, parent: int, inlet: int) -> None:
        """In the new process, which ends here whatever happens: nothing of its parent's is run twice."""
        try:
            found = []
            for path in self.share:
                if os.getppid() != parent:  # killed: its locks must not stay with us
                    os._exit(1)
                found.append(one(self.root, path))
            with os.fdopen(inlet, "wb") as stream:
                stream.write(json.dumps(found).encode())
            os._exit(0)
        finally:
            os._exit(1)

    def result(self) -> dict[str, str]:
        """Path → hash; hashed anew here if the process could not tell them all."""
        with os.fdopen(os.dup(self.output), "rb") as stream:
            told = stream.read()
        try:
            return dict(zip(self.share, json.loads(told), strict=True))
        except ValueError:
            return {path: one(self.root, path) for path in self.share}

    def end(self) -> None:
        """Kills it if it still works, and collects it."""
        os.close(self.output)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
