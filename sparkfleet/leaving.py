"""Hosts that leave the fleet: `sparkfleet remove` names them to the connector, in pyinfra's process."""

from __future__ import annotations

import os

REMOVE = "SPARKFLEET_REMOVE"
"""Names hosts, with spaces between, whose measures are taken for absent, whatever the fleet file says."""


def leaving() -> frozenset[str]:
    return frozenset(os.environ.get(REMOVE, "").split())
