"""The ring as one JSON document, for programs: `sparkfleet-observer --print minutes`. Bounded by the ring's size.

    {"version": 1, "boot": "<id of the boot that runs>", "kind": "minutes", "columns": ["time", …],
     "rows": [[1796093015.2, …], …]}

A row has a value for each column, in order, null where it is not known; the oldest row comes first. Sizes are
bytes, `time` is the host's clock, `boot` the id of the boot that the sample is of. A minute's row is the worst of that
minute: the least that was available, the highest temperature, the lowest clock. `holders`: [pid, name, resident bytes,
GPU bytes] of the largest two, the largest first. 1,440 minutes are below 512 KiB.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sparkhost.observer import ring, told
from sparkhost.observer.recorder import boot_id
from sparkhost.observer.ring import Sample

VERSION = 1
KINDS = ("seconds", "minutes")
MOST = ring.MINUTES
MOST_HOLDERS = 2
COLUMNS = ("time", "boot", *ring.SIZES, *ring.SMALL, *ring.COUNTS, "stopped", "holders")


def row(sample: Sample) -> list[Any]:
    """A sample's values, in the order of COLUMNS."""
    figures = [getattr(sample, name) for name in (*ring.SIZES, *ring.SMALL, *ring.COUNTS)]
    holders = [[h.pid, told.printable(h.name), h.own, h.gpu] for h in sample.holders[:MOST_HOLDERS]]
    return [round(sample.time, 1), sample.boot, *figures, sample.kind == ring.STOP, holders]


def document(path: str, kind: str, last: int) -> dict[str, Any]:
    """What is printed.

    Raises:
        OSError: the ring cannot be read.
    """
    chosen = ring.read(path)[KINDS.index(kind)]
    rows = [row(sample) for sample in chosen[-last:]] if last > 0 else []
    return {"version": VERSION, "boot": boot_id(), "kind": kind, "columns": COLUMNS, "rows": rows}


def show(path: str, kind: str, last: int) -> int:
    """Prints it. Exit code 1, with a line that says why, where there is no ring to read."""
    try:
        text = json.dumps(document(path, kind, last), separators=(",", ":"))
    except OSError as error:
        remedy = "root may" if os.geteuid() else "systemctl status sparkfleet-observer"
        print(f"sparkfleet-observer: {path} cannot be read: {error.strerror}: {remedy}", file=sys.stderr)
        return 1
    print(text)
    return 0
