"""What hosts are to be brought to: made once for all hosts with the same settings, which are most of a fleet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from gevent.lock import BoundedSemaphore

from sparkfleet.settings import HostSettings
from sparkhost.base.files import File
from sparkhost.base.holds import Holds, is_looked_at
from sparkhost.base.resource import Resource
from sparkhost.base.systemd import UNIT_DIRECTORY, DaemonReload
from sparkhost.ssh.guard import Guarded
from tasks.lib import origin, remote

# What of a measure comes after systemd has read its units again; its lines are told as those of the measure.
AFTER_RELOAD = " after daemon-reload"
SYSTEMD = "systemd"


@dataclass(frozen=True)
class Wanted:
    """The measures of a deploy with one set of settings. Shared by hosts: not to be changed."""

    measures: Sequence[dict[str, Any]]
    """All measures in order, as requests."""
    deploy: dict[str, Any]
    """Who deploys what, as the host is told (`tasks.lib.origin`)."""
    plans: dict[tuple[str, bool], str] = field(default_factory=dict)
    """Requests for a plan that were made before: rendering and encoding cost more than all else on a converged host."""

    places: Sequence[str] = ()
    """The names of all that a host with any settings could have, in order."""

    def of(self, measure: str) -> dict[str, Any]:
        """One measure's request."""
        return next(entry for entry in self.measures if entry["name"] == measure)

    def since(self, measure: str) -> Sequence[dict[str, Any]]:
        """A measure and all after it."""
        return self.measures[[entry["name"] for entry in self.measures].index(measure) :]

    def plan(self, measure: str, *, until_change: bool = False) -> str:
        """The request for the plan of a measure and all after it, or up to the first that has something to do."""
        key = measure, until_change
        if key not in self.plans:
            self.plans[key] = remote.request("plan", [*self.since(measure)], until_change=until_change)
        return self.plans[key]


_MADE: dict[tuple[str, tuple[str, ...], bool], Wanted] = {}
# Hosts come here at the same time: while the first waits for git (`origin.version`), the others would make their own.
_MAKING = BoundedSemaphore()


def wanted(raw: dict[str, Any], measures: Sequence[ModuleType], *, local: bool) -> Wanted:
    """What hosts with these settings (JSON values of HostSettings) are to be brought to; `local`: this machine itself.

    Raises:
        pydantic.ValidationError: these are no settings.
    """
    names = tuple(measure.__name__.rpartition(".")[2] for measure in measures)
    key = json.dumps(raw, sort_keys=True), names, local
    with _MAKING:
        if key not in _MADE:
            settings = HostSettings.model_validate(raw)
            deploy = origin.deploy_of(settings, names, local=local)
            ordered = measures[::-1] if leaves(settings, names) else measures
            _MADE[key] = Wanted(requests(settings, ordered), deploy, places=places(ordered))
        return _MADE[key]


def places(measures: Sequence[ModuleType]) -> list[str]:
    """What `requests` may make of these measures, whatever their settings."""
    names = [measure.__name__.rpartition(".")[2] for measure in measures]
    return [*names, SYSTEMD, *(f"{name}{AFTER_RELOAD}" for name in names)]


def requests(settings: HostSettings, measures: Sequence[ModuleType]) -> list[dict[str, Any]]:
    """All measures as requests, in order; what must wait for systemd's reload comes after it."""
    found: list[dict[str, Any]] = []
    resources: list[Resource] = []
    late: list[dict[str, Any]] = []
    for measure in measures:
        name = measure.__name__.rpartition(".")[2]
        resources_here = resources_of(measure, own_settings(settings, name))
        found.append(as_request(name, [r for r in resources_here if not r.after_reload]))
        after = [r for r in resources_here if r.after_reload]
        if after := [*after, *holding(name, resources_here)]:
            late.append(as_request(f"{name}{AFTER_RELOAD}", after))
        resources += resources_here
    units = sorted(
        {p for r in resources if (p := getattr(r, "path", "")).startswith(f"{UNIT_DIRECTORY}/")}
        | {source for r in resources for source in r.unit_sources()}
    )
    return [*found, as_request(SYSTEMD, [DaemonReload(units)] if units else []), *late]


def own_settings(settings: HostSettings, measure: str) -> Any:
    """A measure's settings; the watchdog's with what becomes of a broken promise, which training_slice says."""
    if measure == "watchdog":
        return settings.watchdog.with_promises(settings.training_slice.over_promise)
    return getattr(settings, measure)


def holding(measure: str, resources: Sequence[Resource]) -> list[Holds]:
    """A look at what holds for every file of systemd's or sysctl's that a measure writes, so that none is forgotten."""
    parts = [part for r in resources for part in (r.parts() if isinstance(r, Guarded) else [r])]
    paths = dict.fromkeys(part.path for part in parts if isinstance(part, File))
    return [Holds(measure, path) for path in paths if is_looked_at(Path(path))]


def leaves(settings: HostSettings, names: Iterable[str]) -> bool:
    """Whether everything is taken off this host: in the reverse order then."""
    return all(getattr(settings, name).state == "absent" for name in names)


def resources_of(measure: ModuleType, settings: Any) -> Sequence[Resource]:
    """The resources of a measure in the state that its settings ask for; none where it is unmanaged.

    `RETIRED` of a measure, where it has one, lists what earlier versions put on hosts and this one does not: resources
    that take it away (`RetiredFile`, `NoService`), after what stands in their place is there. What is part of a change
    to SSH belongs under its guard instead.
    """
    if settings.state == "unmanaged":
        return ()
    found: Sequence[Resource] = (measure.apply if settings.state == "present" else measure.remove)(settings)
    return (*found, *getattr(measure, "RETIRED", ()))


def as_request(name: str, resources: Sequence[Resource]) -> dict[str, Any]:
    return {"name": name, "resources": [resource.to_json() for resource in resources]}
