"""What must stay available on this host: the watchdog acts below it, so no tool plans to go there."""

from __future__ import annotations

import tomllib
from pathlib import Path

from sparkhost.base import bounded, shares
from sparkhost.base.resource import Failed
from sparkhost.base.units import Mistake, parse_size
from sparkhost.training_slice import slices

CONFIG = Path("/etc/sparkfleet/watchdog.toml")
MARGIN = 1.25
"""How far above it a run is ended: the watchdog is to have nothing to do."""


def term_below(path: Path = CONFIG) -> int:
    """The threshold that the deploy has set on this host, in bytes; the watchdog's own default where there is none."""
    try:
        return parse_size(str(tomllib.loads(bounded.read_text(path))["term_below"]))
    except (Failed, OSError, ValueError, KeyError, Mistake):
        return shares.part(slices.meminfo()["MemTotal"], *shares.TERM_BELOW)
