"""Who is cabled to whom, and how each rail is: what was seen on all hosts, joined. No I/O.

How it works: every host tells the MAC of its own rails, and which MAC it has heard at each peer's address. So it shows
who really is at the other end, whatever the plan says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparkfleet.audit.controls.cluster_link import SPEED, Seen, seen
from sparkfleet.audit.controls.kit import counted
from sparkfleet.audit.model import Evidence, NoEvidence
from sparkfleet.settings import HostSettings
from sparkfleet.settings.link_addresses import Rail, rails_of

HEADER = ("HOST", "PORT", "RAIL", "DEVICE", "ADDRESS", "MBIT/S", "MTU", "RDMA", "OTHER END")


@dataclass(frozen=True)
class Row:
    """One rail of a host. `problems`: what is wrong about it, in a few words each."""

    cells: tuple[str, ...]
    problems: tuple[str, ...]


def rows(settings: Mapping[str, HostSettings], found: Mapping[str, Evidence | None]) -> list[Row]:
    """A row for each rail of each host that has links; `found`: None for a host that was not reached."""
    states = {name: states_of(evidence) for name, evidence in found.items()}
    owners = {one.mac: (name, one.device) for name, those in states.items() for one in those.values()}
    result = []
    for name, own in settings.items():
        link = own.cluster_link
        if link.state != "present":
            continue
        heard = heard_of(found.get(name))
        for rail in rails_of(link, name):
            one = states[name].get(str(rail.address)) if name in states else None
            ends = [end_of(peer, heard.get(address), owners) for peer, address in rail.peers]
            result.append(row(name, rail, one, ends))
    return result


def states_of(evidence: Evidence | None) -> dict[str, Seen]:
    """Address → device; nothing where a host was not seen, or says something else."""
    try:
        return seen(evidence) if evidence else {}
    except NoEvidence:
        return {}


def heard_of(evidence: Evidence | None) -> dict[str, str]:
    """Address of a neighbour → the MAC that answered for it."""
    try:
        lines = counted(evidence, "link_neighbours", "neighbours") if evidence else []
    except NoEvidence:
        return {}
    matches = [re.fullmatch(r"\S+ (\S+) ([0-9a-f:]{17})", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


def end_of(peer: str, mac: str | None, owners: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """What is at the other end, and what is wrong with that ("": nothing)."""
    if mac is None:
        return f"{peer}?", f"{peer} was not heard"
    host, device = owners.get(mac, ("", ""))
    if not host:
        return f"{mac}?", f"{mac} answers for {peer}, and is no host of the fleet that was seen"
    return f"{host} {device}", "" if host == peer else f"{host} answers for {peer}: a cable or an address is wrong"


def row(name: str, rail: Rail, one: Seen | None, ends: Sequence[tuple[str, str]]) -> Row:
    fixed = (name, str(rail.port), str(rail.rail))
    if one is None:
        return Row((*fixed, "-", str(rail.address), "-", "-", "-", "-"), (f"no device has {rail.address}",))
    problems = [problem for _, problem in ends if problem]
    if one.carrier != "1":
        problems.insert(0, "no carrier: is the cable in?")
    if rail.mtu and one.mtu != str(rail.mtu):
        problems.append(f"MTU {one.mtu}, not {rail.mtu}")
    if not one.speed.isdecimal() or int(one.speed) < SPEED:
        problems.append(f"{one.speed} Mbit/s, not {SPEED}")
    if not one.rdma.endswith(":ACTIVE"):
        problems.append(f"RDMA {one.rdma}")
    cells = (one.device, str(rail.address), one.speed, one.mtu, one.rdma, ", ".join(end for end, _ in ends))
    return Row((*fixed, *cells), tuple(problems))


def table(found: Sequence[Row]) -> list[str]:
    """Lines for a terminal: the rows, then what is wrong."""
    cells = [HEADER, *(each.cells for each in found)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    wrong = [f"{each.cells[0]} {each.cells[3]}: {problem}" for each in found for problem in each.problems]
    return [*lines, *(["", *wrong] if wrong else [])]
