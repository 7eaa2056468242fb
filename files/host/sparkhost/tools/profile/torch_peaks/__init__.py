"""What PyTorch itself says of a step's memory: in use, and reserved by its allocator (torch.cuda.memory_stats).

MemAvailable sees what is reserved, not what of it is in use. `sitecustomize.py` beside this file is put on the step's
PYTHONPATH; Python imports it at its start (docs.python.org/3/library/site.html), and it writes both peaks when the
process ends. A process that is killed, or runs with `-I` or `-S`, writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

VARIABLE = "SPARK_PROFILE_PEAKS"
LARGEST = 4096
"""Bytes of a file."""
MOST = 256
"""Processes of a step."""


class TorchPeaks(NamedTuple):
    """Bytes, each the sum of the peaks of all processes of the step."""

    in_use: int
    reserved: int


def environment(directory: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Variables for a step whose processes are to write into `directory`. `given`: its other ones."""
    path = [str(Path(__file__).parent), *filter(None, [given.get("PYTHONPATH")])]
    return {VARIABLE: str(directory), "PYTHONPATH": os.pathsep.join(path)}


def collect(directory: Path) -> TorchPeaks | None:
    """What the processes have written; None where none has. Files are the job's own, so nothing else is believed."""
    found = []
    for path in sorted(directory.glob("*.json"))[:MOST]:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError), path.open("rb") as stream:
            value = json.loads(stream.read(LARGEST))
            one = TorchPeaks(int(value["in_use"]), int(value["reserved"]))
            if 0 <= one.in_use <= one.reserved < 1 << 50:
                found.append(one)
    if not found:
        return None
    return TorchPeaks(sum(one.in_use for one in found), sum(one.reserved for one in found))
