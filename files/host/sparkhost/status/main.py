"""The stream: a line of JSON a second on standard output, until whoever started it has gone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from pathlib import Path

from sparkhost.status.reader import Reader

EVERY = 1.0
LONGEST = 1 << 17
"""Bytes of a line."""
PATIENCE = 30.0
"""Seconds that nobody may take a line before the reader ends: the network is cut, or the controller stopped."""


def main(every: float = EVERY, count: int = 0) -> int:
    """`count`: lines after which it ends; 0 for as long as standard input is open.

    It gives way to all else on the host, and the kernel may end it first when memory is short.
    """
    os.nice(10)
    with contextlib.suppress(OSError):  # a container may not
        Path("/proc/self/oom_score_adj").write_text("500")
    os.set_blocking(1, False)
    reader, said, due = Reader(), 0, time.monotonic()
    while not count or said < count:
        if not written(line_of(reader)):
            return 0
        said += 1
        due = max(due + every, time.monotonic())
        if said != count and not waited(due):
            return 0
    return 0


def line_of(reader: Reader) -> bytes:
    """A look as a line. What is too long says so: a cut line would be none."""
    line = json.dumps(reader.look(), separators=(",", ":")).encode() + b"\n"
    if len(line) > LONGEST:
        line = json.dumps({"problem": f"a line of {len(line)} bytes was left out"}).encode() + b"\n"
    return line


def written(line: bytes) -> bool:
    """Whether somebody took it."""
    until = time.monotonic() + PATIENCE
    while line:
        try:
            line = line[os.write(1, line) :]
        except BlockingIOError:
            left = until - time.monotonic()
            if left <= 0 or not select.select([], [1], [], left)[1]:
                return False
        except OSError:
            return False
    return True


def waited(due: float) -> bool:
    """Waits; False where standard input has ended, and with it whoever looks."""
    while (left := due - time.monotonic()) > 0:
        if select.select([0], [], [], left)[0] and not os.read(0, 4096):
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
