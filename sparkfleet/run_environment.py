"""What a command of ours tells the process of pyinfra: who leaves, what is chosen, other settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

REMOVE = "SPARKFLEET_REMOVE"
"""Names hosts, with spaces between, whose measures are taken for absent, whatever the fleet file says."""
ONLY = "SPARKFLEET_ONLY"
"""Names measures, with spaces between: `all_measures()` leaves the others alone."""
SETTINGS = "SPARKFLEET_SETTINGS"
"""Names a file, JSON: by host, settings of measures that stand in the place of the fleet file's."""
OURS_ALONE = (REMOVE, ONLY, SETTINGS)
"""What only a command of ours may set: left exported by somebody, it must not reach a deploy."""


def leaving() -> frozenset[str]:
    return frozenset(os.environ.get(REMOVE, "").split())


def other_settings() -> dict[str, dict[str, Any]]:
    """By host, settings of measures that stand in the place of the fleet file's."""
    if SETTINGS not in os.environ:
        return {}
    found: dict[str, dict[str, Any]] = json.loads(Path(os.environ[SETTINGS]).read_text(encoding="utf-8"))
    return found
