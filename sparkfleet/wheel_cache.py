"""Where the controller keeps wheels, by SHA-256: what is downloaded once serves every host."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/sparkfleet/wheels`; a wheel lies in it as SHA256/FILENAME."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sparkfleet" / "wheels"
