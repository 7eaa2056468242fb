"""The unit that builds vLLM, and the account that compiles: their names, and whether a build runs."""

from __future__ import annotations

from sparkhost.base.pid1 import show
from sparkhost.base.systemd import UNIT_DIRECTORY

UNIT = "sparkfleet-vllm-source.service"
UNIT_FILE = f"{UNIT_DIRECTORY}/{UNIT}"
ACCOUNT = "sparkfleet-build"


def is_building() -> bool:
    """Whether the unit runs, or is about to: its job may still wait."""
    found = show(UNIT, "ActiveState", "Job")
    return found.get("Job", "0") not in ("", "0") or found.get("ActiveState") in (
        "activating",
        "active",
        "deactivating",
    )
