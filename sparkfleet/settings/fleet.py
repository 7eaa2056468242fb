"""The fleet file: hosts, and settings at three levels, joined into one `HostSettings` a host."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pydantic import Field, ValidationError, field_validator

from sparkfleet.settings.base import Measure, Strict
from sparkfleet.settings.explain import contradictions_of, problems_of, suggestion
from sparkfleet.settings.groups import fill_in, written_by_hand
from sparkfleet.settings.measures import HostSettings
from sparkfleet.settings.problems import FleetError, Path, Problem, show
from sparkfleet.settings.rollout import RolloutSettings
from sparkfleet.settings.values import Address, FormatVersion, GroupName, HostName, LocalPath, Port, UserName
from sparkfleet.settings.yaml_file import Document, read_yaml


class HostEntry(Strict):
    """A host as the fleet file declares it."""

    address: Address | None = Field(
        default=None, description="Name or address to connect to; without it the host's name, also one of ssh_config."
    )
    port: Port | None = Field(default=None, description="SSH port; without it ssh_config's, else 22.")
    user: UserName | None = Field(
        default=None, description="User to log in as; without it ssh_config's, else your own name."
    )
    ssh_key: LocalPath | None = Field(
        default=None, description="Private key, relative to the fleet file; without it ssh_config's or the agent's."
    )
    groups: list[str] = Field(
        default=[], description="Groups in order: a later one overrides an earlier one, the host overrides both."
    )
    settings: HostSettings = Field(default=HostSettings(), description="Settings of this host alone.")


class FleetFile(Strict):
    """The whole file."""

    version: FormatVersion = Field(default=1, description="The version of this format.")
    known_hosts: LocalPath = Field(
        default="~/.ssh/known_hosts",
        description="The file with the hosts' keys, relative to the fleet file. Hosts that are not in it are refused.",
    )
    rollout: RolloutSettings = Field(default=RolloutSettings(), description="How `sparkfleet rollout` goes about it.")
    defaults: HostSettings = Field(default=HostSettings(), description="Settings of every host.")
    groups: dict[GroupName, HostSettings] = Field(default={}, description="Settings of groups of hosts.")
    hosts: dict[HostName, HostEntry] = Field(description="The hosts, by name.")

    @field_validator("hosts", mode="before")
    @classmethod
    def _none_yet(cls, value: Any) -> Any:
        return {} if value is None else value


@dataclass(frozen=True)
class FleetHost:
    """A host, ready to be connected to and configured."""

    name: str
    address: str | None
    port: int | None
    user: str | None
    ssh_key: FilePath | None
    groups: tuple[str, ...]
    settings: HostSettings


@dataclass(frozen=True)
class Fleet:
    """All hosts of a fleet file, in its order."""

    known_hosts: FilePath
    groups: tuple[str, ...]
    hosts: tuple[FleetHost, ...]
    rollout: RolloutSettings = field(default_factory=RolloutSettings)


@dataclass(frozen=True)
class Level:
    """One of the places where settings of a host are given."""

    path: Path
    raw: Mapping[str, Any]


def levels_of(raw: Mapping[str, Any], name: str) -> list[Level]:
    """The levels of a host in a file's value, the nearer one later; a group that is not declared sets nothing."""
    entry = _mapping(_mapping(raw, "hosts"), name)
    groups = _mapping(raw, "groups")
    return [
        Level(("defaults",), _mapping(raw, "defaults")),
        *(Level(("groups", group), _mapping(groups, group)) for group in entry.get("groups", [])),
        Level(("hosts", name, "settings"), _mapping(entry, "settings")),
    ]


def chosen_fleet_file(named: FilePath | None) -> FilePath | None:
    """The fleet file that was named on the command line, else `$FLEET`'s; None without either."""
    return named or (FilePath(os.environ["FLEET"]) if os.environ.get("FLEET") else None)


def load_fleet(path: FilePath) -> Fleet:
    """Reads and checks a fleet file. A project in its folder is taken in first: its measures have settings here.

    Raises:
        FleetError: every mistake in the file, one line each; or those of the project.
    """
    from sparkfleet.site import use  # it extends what is defined here

    document = read_yaml(path)
    use(path.absolute().parent)
    return _Checker(document, path.absolute().parent).fleet()


class _Checker:
    """Collects the mistakes of a file while the fleet is made of it; parts without a mistake are checked further."""

    def __init__(self, document: Document, folder: FilePath) -> None:
        self.document = document
        self.folder = folder
        self.problems = list(document.problems)
        value = document.value
        self.raw: Mapping[str, Any] = value if isinstance(value, dict) else {}

    def fleet(self) -> Fleet:
        try:
            FleetFile.model_validate(self.document.value)
        except ValidationError as error:
            # A value that the YAML reader has complained about is not complained about twice.
            seen = {problem.path for problem in self.problems}
            self.problems += [p for p in problems_of(error, FleetFile) if p.path not in seen]
        if not self.problems:
            self.problems += written_by_hand(self.raw)
        hosts = [host for name in _mapping(self.raw, "hosts") if (host := self.host(name))]
        if "hosts" in self.raw and self.raw["hosts"] in (None, {}):
            text = "is empty, expected at least one host: `sparkfleet enrol NAME` adds one"
            self.problems.append(Problem(("hosts",), text))
        self.check_names()
        self.check_canaries()
        self.check_addresses(hosts)
        if not self.problems:
            filled = fill_in(self.raw, hosts)
            hosts = [*filled.hosts]
            self.problems += filled.problems
        if self.problems:
            raise FleetError(list(self.document.complaints(self.problems)))
        known_hosts = self.raw.get("known_hosts", FleetFile.model_fields["known_hosts"].default)
        rollout = RolloutSettings.model_validate(self.raw.get("rollout", {}))
        return Fleet(self.local(known_hosts), tuple(_mapping(self.raw, "groups")), tuple(hosts), rollout)

    def faulty(self, path: Path) -> bool:
        return any(problem.path[: len(path)] == path for problem in self.problems)

    def host(self, name: str) -> FleetHost | None:
        """The host with its settings joined; None where something about it is wrong."""
        path: Path = ("hosts", name)
        if self.faulty(path):
            return None
        raw = _mapping(_mapping(self.raw, "hosts"), name)
        groups: list[str] = raw.get("groups", [])
        declared = list(_mapping(self.raw, "groups"))
        for index, group in enumerate(groups):
            if group not in declared:
                hint = suggestion(group, declared) if declared else "none is declared"
                text = f"got {show(group)}, expected a group that is declared under groups ({hint})"
                self.problems.append(Problem((*path, "groups", index), text))
            elif group in groups[:index]:
                self.problems.append(Problem((*path, "groups", index), f"got {show(group)} a second time"))
        levels = levels_of(self.raw, name)
        if self.faulty(path) or any(self.faulty(level.path) for level in levels):
            return None
        settings = self.settings(levels)
        if settings is None:
            return None
        key = raw.get("ssh_key")
        return FleetHost(
            name=name,
            address=raw.get("address"),
            port=raw.get("port"),
            user=raw.get("user"),
            ssh_key=self.local(key) if key else None,
            groups=tuple(groups),
            settings=settings,
        )

    def settings(self, levels: list[Level]) -> HostSettings | None:
        """The joined settings; contradictions are laid to the level that set the key last."""
        joined = join([level.raw for level in levels])
        try:
            return HostSettings.model_validate(joined)
        except ValidationError as error:
            for problem in [*contradictions_of(error, HostSettings), *problems_of(error, HostSettings)]:
                measure, key = problem.path[:2]
                last = next(lv for lv in reversed(levels) if key in _mapping(lv.raw, measure) or lv is levels[0])
                self.problems.append(Problem((*last.path, *problem.path), problem.text))
            return None

    def check_names(self) -> None:
        """`--limit NAME` looks for a group first: a host of the same name could not be chosen."""
        for name in _mapping(self.raw, "hosts"):
            if name in _mapping(self.raw, "groups") or name in ("all", "inventory"):
                self.problems.append(Problem(("hosts", name), f"got {show(name)}, which is also the name of a group"))

    def check_canaries(self) -> None:
        if self.faulty(("rollout",)):
            return
        declared = list(_mapping(self.raw, "hosts"))
        for index, name in enumerate(_mapping(self.raw, "rollout").get("canary", [])):
            if name not in declared:
                text = f"got {show(name)}, expected a host that is declared under hosts ({suggestion(name, declared)})"
                self.problems.append(Problem(("rollout", "canary", index), text))

    def check_addresses(self, hosts: list[FleetHost]) -> None:
        seen: dict[tuple[str, int], FleetHost] = {}
        for host in hosts:
            address, port = host.address or host.name, host.port or 22
            first = seen.setdefault((_normal(address), port), host)
            if first is not host:
                path: Path = ("hosts", host.name, *(["address"] if host.address else []))
                text = f"{show(address)} port {port} is already the host {first.name}"
                self.problems.append(Problem(path, f"{text} on line {self.document.line(('hosts', first.name))}"))

    def local(self, path: str) -> FilePath:
        return (self.folder / os.path.expanduser(path)).resolve()  # noqa: PTH111 - leaves ~nobody as it is


def join(levels: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of several levels as one: a later level wins, mappings are joined key by key."""
    joined: dict[str, Any] = {}
    for level in levels:
        for name, upper in level.items():
            lower = joined.get(name) or {}
            measure = HostSettings.model_fields[name].annotation
            if upper and isinstance(measure, type) and issubclass(measure, Measure):
                for key, dependent in measure.starts_anew.items():
                    if key in upper and upper[key] != lower.get(key, measure.model_fields[key].default):
                        lower = {k: v for k, v in lower.items() if k != dependent}
            joined[name] = _merged(lower, upper or {})
    return joined


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return result


def _mapping(raw: Mapping[str, Any], key: object) -> Mapping[str, Any]:
    """The mapping under a key; an empty one where there is none, or something else."""
    value = raw.get(str(key))
    return value if isinstance(value, dict) else {}


def _normal(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower()
