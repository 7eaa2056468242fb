"""Measures of a group (ADR 19): fills in which hosts belong together, and finds what does not fit over the fleet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sparkfleet.settings.base import Measure
from sparkfleet.settings.cluster_link import ClusterLinkSettings
from sparkfleet.settings.explain import contradictions_of
from sparkfleet.settings.link_addresses import clash, subnets
from sparkfleet.settings.measures import HostSettings
from sparkfleet.settings.problems import Path, Problem

if TYPE_CHECKING:
    from sparkfleet.settings.fleet import FleetHost

FILLED_IN = ("host", "hosts")
OWN = (*FILLED_IN, "devices", "take_over", "environment", "confirm_within")
"""What may differ between the hosts of a group."""


@dataclass(frozen=True)
class Filled:
    """The hosts, with those of their groups, and what does not fit."""

    hosts: Sequence[FleetHost]
    problems: Sequence[Problem]


def fill_in(raw: Mapping[str, Any], hosts: Sequence[FleetHost]) -> Filled:
    """`raw`: the fleet file's value."""
    problems: list[Problem] = []
    for measure in measures_of_groups():
        members: dict[str, list[FleetHost]] = {}
        for host in hosts:
            if getattr(host.settings, measure).state != "present":
                continue
            group = group_of(raw, host, measure)
            if group is None:
                problems.append(Problem(where_of(raw, host, measure), "is for a group of hosts: put it under groups"))
            else:
                members.setdefault(group, []).append(host)
        for group, those in members.items():
            found = together(measure, ("groups", group, measure), those)
            problems += found.problems
            new = {host.name: host for host in found.hosts}
            hosts = [new.get(host.name, host) for host in hosts]
    return Filled(hosts, problems or [*link_conflicts(raw, hosts)])


def measures_of_groups() -> list[str]:
    types = {name: field.annotation for name, field in HostSettings.model_fields.items()}
    return [n for n, t in types.items() if isinstance(t, type) and issubclass(t, Measure) and t.of_group]


def written_by_hand(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Keys in the fleet file that are for the loader alone. `raw`: a file whose types are right."""
    for measure in measures_of_groups():
        for path, level in levels(raw):
            for key in FILLED_IN:
                if key in (level.get(measure) or {}):
                    yield Problem((*path, measure, key), "is filled in from the groups of the fleet file: leave it out")


def levels(raw: Mapping[str, Any]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every place of a fleet file where settings stand."""
    yield ("defaults",), raw.get("defaults") or {}
    for group, settings in (raw.get("groups") or {}).items():
        yield ("groups", group), settings or {}
    for host, entry in (raw.get("hosts") or {}).items():
        yield ("hosts", host, "settings"), (entry or {}).get("settings") or {}


def group_of(raw: Mapping[str, Any], host: FleetHost, measure: str) -> str | None:
    """The last of a host's groups that sets the measure."""
    groups = raw.get("groups") or {}
    return next((group for group in reversed(host.groups) if measure in (groups.get(group) or {})), None)


def where_of(raw: Mapping[str, Any], host: FleetHost, measure: str) -> Path:
    own = ("hosts", host.name, "settings")
    set_here = dict(levels(raw)).get(own, {})
    return (*own, measure) if measure in set_here else ("defaults", measure)


def together(measure: str, path: Path, hosts: Sequence[FleetHost]) -> Filled:
    """The hosts of one group, each with the names of all."""
    names = [host.name for host in hosts]
    filled, problems = [], []
    first = hosts[0]
    for host in hosts:
        own: Measure = getattr(host.settings, measure)
        common = getattr(first.settings, measure).model_dump(exclude=set(OWN))
        for key, value in own.model_dump(exclude=set(OWN)).items():
            if value != common[key]:
                where: Path = ("hosts", host.name, "settings", measure, key)
                problems.append(Problem(where, f"differs from that of {first.name}: both are ends of the same links"))
        try:
            made = type(own).model_validate(own.model_dump() | {"host": host.name, "hosts": names})
        except ValidationError as error:
            problems += [Problem((*path, *p.path), p.text) for p in contradictions_of(error, type(own))]
            break
        filled.append(replace(host, settings=host.settings.model_copy(update={measure: made})))
    return Filled(filled, problems)


def link_conflicts(raw: Mapping[str, Any], hosts: Sequence[FleetHost]) -> Iterator[Problem]:
    """Networks of links that overlap those of another group's, or hold an address that a host is reached at."""
    seen: dict[str, tuple[str, ClusterLinkSettings]] = {}
    for host in hosts:
        link = host.settings.cluster_link
        group = group_of(raw, host, "cluster_link")
        if link.state != "present" or group is None or group in seen:
            continue
        path: Path = ("groups", group, "cluster_link", "pool")
        for other, theirs in seen.values():
            if found := clash(subnets(link), subnets(theirs)):
                yield Problem(path, f"{found[0]} of this group's links overlaps {found[1]} of group {other}'s")
        for reached in hosts:
            for subnet in subnets(link):
                if holds(subnet, reached.address or reached.name):
                    yield Problem(path, f"{subnet} holds {reached.address}, the address of {reached.name}")
        seen[group] = group, link


def holds(subnet: ipaddress.IPv4Network, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in subnet
    except ValueError:
        return False  # a name
