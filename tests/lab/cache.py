"""Where the lab keeps what all labs of a user share: images, the accelerator's probe, archive keys."""

from __future__ import annotations

import os
from pathlib import Path


def directory() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/sparkfleet`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sparkfleet"
