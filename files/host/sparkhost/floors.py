"""Whether the memory watchdog's thresholds leave enough of a host's memory to work in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparkhost import slices
from sparkhost.resource import Change, Context, Refused, Resource

MIB = 2**20


@dataclass(frozen=True)
class FloorsFit(Resource):
    """Changes nothing: refuses a `term_below` (bytes) of more than half of MemTotal, before anything is installed.

    The program refuses it as well (`spark-watchdog check`), but a first deploy would have put it there by then.
    """

    kind: ClassVar[str] = "floors_fit"
    is_basis: ClassVar[bool] = True
    term_below: int

    def plan(self, context: Context) -> Sequence[Change]:
        total = slices.meminfo()["MemTotal"]
        if 2 * self.term_below > total:
            most = total // 2 // MIB
            raise Refused(
                f"term_below is {self.term_below // MIB} MiB, more than half of this host's {total // MIB} MiB: set "
                f"watchdog.term_below to {most}MiB at most, and kill_below to about half of it, or watchdog.state to "
                "unmanaged"
            )
        return []

    def apply(self) -> None:
        """Nothing to do: `plan` finds no changes."""
