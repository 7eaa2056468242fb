"""What a host's desktop was before us."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, sync_directory, write_atomic
from sparkhost.base.resource import Failed

RECORD = Path("/var/lib/sparkfleet/headless.json")


@dataclass(frozen=True)
class Before:
    """Written before anything is changed, and removed after all of it was taken back."""

    link: str | None
    """Where /etc's default.target led; None where there was none, and the distribution's counted."""
    manager: str
    """The display manager that ran; "" for none."""


def read() -> Before | None:
    """What is noted; None where we have changed nothing. Raises Failed."""
    try:
        found = json.loads(bounded.read_text(RECORD))
        before = Before(**found)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged() from error
    if not isinstance(before.manager, str) or not isinstance(before.link, str | None):
        raise damaged()
    return before


def damaged() -> Failed:
    return Failed(f"{RECORD} is damaged: systemctl set-default graphical.target by hand, remove it, and deploy again")


def write(before: Before) -> None:
    make_directories(RECORD.parent)
    write_atomic(RECORD, (json.dumps(asdict(before)) + "\n").encode(), 0o644)


def forget() -> None:
    RECORD.unlink(missing_ok=True)
    sync_directory(RECORD.parent)
