"""Units of ours that run: started when their files are known to PID 1, stopped before these go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparkhost.resource import Change, Context, Resource
from sparkhost.systemd import run, show


@dataclass(frozen=True)
class Running(Resource):
    """A unit that is active now. That it is at the next boot, too, is for the link in its target's `.wants/`."""

    kind: ClassVar[str] = "running"
    after_reload: ClassVar[bool] = True
    unit: str

    def plan(self, context: Context) -> Sequence[Change]:
        state = show(self.unit, "ActiveState").get("ActiveState", "unknown")
        return [] if state == "active" else [Change(self.unit, f"start ({state})")]

    def apply(self) -> None:
        run("systemctl", "start", "--", self.unit)


@dataclass(frozen=True)
class NotRunning(Resource):
    """A unit that is stopped, as long as it is known at all."""

    kind: ClassVar[str] = "not_running"
    unit: str

    def plan(self, context: Context) -> Sequence[Change]:
        state = show(self.unit, "ActiveState").get("ActiveState", "inactive")
        return [] if state in ("inactive", "failed") else [Change(self.unit, "stop")]

    def apply(self) -> None:
        run("systemctl", "stop", "--", self.unit)
