"""Another memory killer's service, switched off while the watchdog does its work, and put back afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, sync_directory, write_atomic
from sparkhost.base.pid1 import run, show
from sparkhost.base.resource import Context, Failed, Resource, Step

RECORD = Path("/var/lib/sparkfleet/replaced-killers.json")
"""Unit → how it was before: `enabled`, `active`. Written before it is switched off."""


def read_record() -> dict[str, dict[str, bool]]:
    """Raises:
    Failed: the file is damaged. One line with the remedy.
    """
    if not RECORD.exists():
        return {}
    try:
        value = json.loads(bounded.read_text(RECORD))
        return {
            str(unit): {"enabled": bool(was["enabled"]), "active": bool(was["active"])} for unit, was in value.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Failed(f"{RECORD} is damaged: enable what was replaced by hand, remove it, and deploy again") from None


def write_record(record: dict[str, dict[str, bool]]) -> None:
    if record:
        make_directories(RECORD.parent)
        write_atomic(RECORD, json.dumps(record).encode() + b"\n", 0o644)
    elif RECORD.exists():
        RECORD.unlink()
        sync_directory(RECORD.parent)


def state(unit: str) -> dict[str, bool] | None:
    """Whether it is enabled and active; None where it is not installed, or masked."""
    found = show(unit, "LoadState", "ActiveState", "UnitFileState")
    if found["LoadState"] != "loaded":
        return None
    active = found["ActiveState"] in ("active", "activating", "reloading")
    return {"enabled": found["UnitFileState"] in ("enabled", "enabled-runtime"), "active": active}


@dataclass(frozen=True)
class Replaced(Resource):
    """The unit neither runs nor starts at boot. After the watchdog runs: a host is never without either."""

    kind: ClassVar[str] = "replaced_killer"
    unit: str
    only_with: str = ""
    """A file without which nothing is done: where the watchdog was refused, the other killer stays."""

    def units(self) -> Sequence[str]:
        return (self.unit,)

    def steps(self, context: Context) -> Iterator[Step]:
        if self.only_with and not context.will_change(self.only_with) and not Path(self.only_with).exists():
            return
        found = state(self.unit)
        if found and any(found.values()):
            says = "stop and disable: the watchdog does its work (watchdog.replace_earlyoom)"
            yield Step(self.unit, says, lambda: self._switch_off(found))

    def _switch_off(self, found: dict[str, bool]) -> None:
        record = read_record()
        # What a run that was killed has noted is how it was; by now it may be half switched off.
        record.setdefault(self.unit, found)
        write_record(record)
        run("systemctl", "disable", "--quiet", "--now", self.unit)


@dataclass(frozen=True)
class ReplacedBack(Resource):
    """The unit as it was before `Replaced`, once. Where it was removed or masked since, that stays."""

    kind: ClassVar[str] = "replaced_killer_back"
    unit: str

    def units(self) -> Sequence[str]:
        return (self.unit,) if self.unit in read_record() else ()

    def steps(self, context: Context) -> Iterator[Step]:
        if was := read_record().get(self.unit):
            words = " and ".join(word for word, key in (("enable", "enabled"), ("start", "active")) if was[key])
            yield Step(self.unit, f"{words} again, as it was before sparkfleet", self._put_back)

    def _put_back(self) -> None:
        record = read_record()
        was = record.pop(self.unit)
        if state(self.unit) is not None:
            if was["enabled"]:
                run("systemctl", "enable", "--quiet", self.unit)
            if was["active"]:
                run("systemctl", "start", self.unit)
        write_record(record)
