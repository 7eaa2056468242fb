"""The subcommands of an admin's day."""

from __future__ import annotations

from typing import Any

from sparkfleet.admin import check, history, lock, manual, run, settings, undo

PARTS = (check, settings, run, lock, history, undo, manual)


def add_arguments(commands: Any) -> None:
    """Adds all of them, in the order of `--help`."""
    for part in PARTS:
        part.add_arguments(commands)
