"""Runs sparkhost on a host without installing it: its sources travel with the request, on stdin.

One SSH command plans every measure at once (ADR 2), and nothing of the request shows in a process list.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from sparkfleet.host_sources import by_name, command, file_of, packed
from sparkhost.base.resource import Resource

COMMAND = command("sparkhost.base.converge")


@cache
def sources(modules: frozenset[str]) -> dict[str, str]:
    """By dotted name the source of `base.converge`, of these modules, and of all that they import of sparkhost."""
    return by_name(map(file_of, {"sparkhost.base.converge", *modules}))


def kinds(resources: Iterable[dict[str, Any]]) -> set[str]:
    """The kinds of these resources, and of those that stand inside of one (under guard)."""
    return {kind for r in resources for kind in (r["kind"], *kinds(r.get("resources", ())))}


def request(action: str, measures: list[dict[str, Any]], uploads: dict[str, str] | None = None, **more: Any) -> str:
    """The request, packed for stdin. `uploads`: SHA-256 → path on the host of what was delivered; `more`:
    further keys, see `sparkhost.base.converge`.
    """
    known = Resource.KINDS
    modules = {known[k].__module__ for measure in measures for k in kinds(measure["resources"]) if k in known}
    return packed(
        {
            "action": action,
            "modules": sorted(modules),
            "measures": measures,
            "uploads": uploads or {},
            "sources": sources(frozenset(modules)),
            **more,
        }
    )
