"""Sizes of settings on their way to a host, which works out those that are a share of its memory."""

from __future__ import annotations

from typing import Any

from sparkfleet.settings.shares import HostSize, Share
from sparkhost.base import shares


def on_host(size: HostSize, unit: int = 1) -> Any:
    """A size in units (bytes), or the word that the host replaces by that number (`sparkhost.base.shares`)."""
    return shares.word(size.numerator, size.denominator, unit) if isinstance(size, Share) else int(size) // unit


def rule(size: HostSize) -> str:
    """How the fleet file says a size, for a comment beside the number that it is on this host."""
    return f"{size.rule} of this host's memory" if isinstance(size, Share) else f"{size}, as set"
