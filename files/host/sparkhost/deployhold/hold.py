"""A hold is for people who work on a host by hand. Unlike the lock of a deploy, it outlives sessions and reboots."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, sync_directory, write_atomic
from sparkhost.base.resource import Failed

HOLD = Path("/var/lib/sparkfleet/hold.json")
LONGEST = 200
"""Characters of a reason."""


@dataclass(frozen=True)
class Hold:
    """Who holds deploys back, since when (seconds since the epoch), and why."""

    by: str
    since: float
    why: str

    def line(self) -> str:
        """For the admin who wants to deploy."""
        at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.since))
        return f"{self.by} holds deploys to this host since {at}: {self.why}: `sparkfleet lock release` ends that"


def read() -> Hold | None:
    """The hold; None without one. One that cannot be read still holds: somebody has asked for it."""
    try:
        found = json.loads(bounded.read_text(HOLD))
        return Hold(str(found["by"]), float(found["since"]), str(found["why"]))
    except FileNotFoundError:
        return None
    except (Failed, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None if not HOLD.exists() else Hold("somebody", 0.0, f"{HOLD} cannot be read")


def write(by: str, why: str) -> Hold:
    """Holds deploys back. Raises OSError."""
    hold = Hold(by, time.time(), why[:LONGEST])
    make_directories(HOLD.parent)
    write_atomic(HOLD, (json.dumps({"_": "managed by sparkfleet", **asdict(hold)}) + "\n").encode(), 0o644)
    return hold


def remove() -> None:
    """Ends a hold. Raises OSError."""
    HOLD.unlink(missing_ok=True)
    if HOLD.parent.is_dir():
        sync_directory(HOLD.parent)
