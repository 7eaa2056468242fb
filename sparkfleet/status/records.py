"""What this controller knows of its hosts without asking them: the last audit, the last deploy or drift.

A deploy and a dry run note here how they left each host (`note`); audits are in their store.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkfleet import foreign
from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.model import Run, Status
from sparkfleet.audit.report.html import LETTERS
from sparkfleet.audit.store import Store
from sparkfleet.exit_codes import CommandFailed
from sparkfleet.state_files import replace_file, state_file

if TYPE_CHECKING:
    from sparkfleet.deploy.outcome import Outcome

EVERY = 15.0
"""Seconds between two looks for newer records."""
MOST = 4 << 20
"""Bytes of the file of drifts: a host has 150."""


@dataclass(frozen=True)
class Audited:
    """How a host stood in the last audit of this fleet file. `red`: failures by severity."""

    at: float
    run: str
    red: dict[str, int]
    unseen: int
    """Controls without evidence."""
    letters: str
    """A letter a control, in the order of `Records.controls`; see the audit's page."""


@dataclass(frozen=True)
class Drifted:
    """How the last deploy or dry run left a host. `state`: as `sparkfleet.deploy.outcome.State`."""

    at: float
    by: str
    state: str
    changes: int


@dataclass
class Records:
    """The records of one fleet file, looked for again from time to time."""

    fleet_file: Path
    audits: dict[str, Audited] = field(default_factory=dict)
    drifts: dict[str, Drifted] = field(default_factory=dict)
    controls: list[list[str]] = field(default_factory=list)
    """Id, title and severity of each control of the last audit."""
    store: Path | None = None
    _newest: tuple[str, ...] = ()
    _looked: float = float("-inf")

    def look(self) -> None:
        """Reads what is newer; what cannot be read leaves what was known."""
        if time.monotonic() - self._looked < EVERY:
            return
        self._looked = time.monotonic()
        with suppress(CommandFailed):
            store = Store(self.store)
            newest = store.ids()[-1:]  # of any fleet: heads of runs are read only where there is a new one
            if newest != self._newest:
                last = next(store.runs(str(self.fleet_file)), None)
                if last is not None:
                    self._audit(store.load(last.id))
                self._newest = newest
        self.drifts = drifts_of(self.fleet_file)

    def _audit(self, run: Run) -> None:
        asked = {verdict.control for verdict in run.verdicts}
        known = [control for control in CONTROLS if control.id in asked and control.fleet_judge is None]
        severity = {control.id: str(control.severity) for control in CONTROLS}
        self.controls = [[control.id, control.title, str(control.severity)] for control in known]
        at = datetime.fromisoformat(run.started).timestamp()
        by_host: dict[str, dict[str, Status]] = {host.name: {} for host in run.hosts}
        for verdict in run.verdicts:
            by_host.setdefault(verdict.host, {})[verdict.control] = verdict.status
        self.audits = {}
        for host, verdicts in by_host.items():
            red: dict[str, int] = {}
            for control, status in verdicts.items():
                if status is Status.FAIL:
                    word = severity.get(control, "high")
                    red[word] = red.get(word, 0) + 1
            unseen = sum(status in (Status.ERROR, Status.UNREACHABLE) for status in verdicts.values())
            letters = "".join(LETTERS[verdicts[c.id]][0] if c.id in verdicts else " " for c in known)
            self.audits[host] = Audited(at, run.id, red, unseen, letters)


def path_of(fleet_file: Path) -> Path:
    """Where the drifts of a fleet file are noted, in the XDG state directory."""
    return state_file("drift", fleet_file)


def drifts_of(fleet_file: Path) -> dict[str, Drifted]:
    """By host what was noted; nothing where there is no file, or a damaged one."""
    found: dict[str, Drifted] = {}
    with suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        with path_of(fleet_file).open("rb") as stream:
            hosts: dict[str, Any] = json.loads(stream.read(MOST))["hosts"]
        for name, one in hosts.items():
            found[name] = Drifted(
                float(one["at"]), str(one["by"]), foreign.line(str(one["state"]), 20), int(one["changes"])
            )
    return found


def note(fleet_file: Path | None, found: Sequence[Outcome], by: str) -> None:
    """Notes how a run left its hosts; hosts that it was not about stay as they were. None: of no fleet, so of none.

    A state directory that cannot be written costs this note only: the run itself has been told.
    """
    if fleet_file is None:
        return
    now = datetime.now(UTC).timestamp()
    known = {name: vars(one) for name, one in drifts_of(fleet_file).items()}
    for one in found:
        known[one.host] = {"at": now, "by": by, "state": str(one.state), "changes": one.changes()}
    path = path_of(fleet_file)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, json.dumps({"schema": 1, "hosts": known}))
