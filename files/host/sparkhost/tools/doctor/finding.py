"""What the doctor tells: a trouble, where it was seen, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Weight = Literal["broken", "warning", "note"]
ORDER: tuple[Weight, ...] = ("broken", "warning", "note")


class Finding(NamedTuple):
    """One trouble. `broken`: it fails, or endangers the host; `warning`: it may; `note`: harmless, but people ask."""

    id: str
    """Stable, for programs: `cudart-12`, `swap-on`, …"""
    weight: Weight
    where: str
    """The file, process or host it was seen on."""
    saw: str
    why: str
    fix: str


def plain(text: str, limit: int = 300) -> str:
    """One line that a terminal shows as it is: what others chose (names, arguments) may hold escape sequences."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    return line if len(line) <= limit else f"{line[:limit]}…"


def sorted_by_weight(found: Iterable[Finding]) -> list[Finding]:
    """The worst first, each one once."""
    return sorted(dict.fromkeys(found), key=lambda finding: (ORDER.index(finding.weight), finding.id, finding.where))


def lines(finding: Finding) -> list[str]:
    """For a person."""
    return [
        f"{finding.weight}: {finding.id}: {plain(finding.where)}",
        f"  saw  {plain(finding.saw)}",
        f"  why  {plain(finding.why, 600)}",
        f"  fix  {plain(finding.fix, 600)}",
    ]
