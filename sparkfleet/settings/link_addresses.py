"""Who is cabled to whom, and every address on a group's links: from the settings alone, the same for all who ask.

How it works: a *cable* joins ports of hosts (of a pair, of neighbours in a ring, or of all through a switch). Each port
of a Spark shows as two network devices, its *rails*, and each rail of each cable has a subnet of its own: two rails in
one subnet would send by either (NVIDIA, dgx-spark-playbooks, multi-sparks-through-switch). Subnet 2c + r of the pool
is rail r of cable c. A host has the same last number in all of its subnets: 11 for the first of the fleet file.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparkfleet.settings.cluster_link import ClusterLinkSettings

FIRST = 11
"""The last number of the first host's addresses; below it is room for a switch's own."""
PREFIX = 24
RAILS = 2
JUMBO = 9000
"""MTU of direct cables, in bytes: RoCE's own is 4096 then, and 1024 with 1500."""


@dataclass(frozen=True)
class Rail:
    """One network device of a host on its links."""

    port: int
    """0 is next to the RJ45, 1 the outer one."""
    rail: int
    address: IPv4Interface
    mtu: int | None
    """Bytes; None leaves the device's as it is."""
    peers: tuple[tuple[str, str], ...]
    """Name and address of every host at the other end."""

    @property
    def subnet(self) -> IPv4Network:
        return self.address.network


def cables(settings: ClusterLinkSettings) -> list[list[tuple[str, int]]]:
    """The ends of each cable, as host and port; a switch counts as one cable of many ends."""
    if settings.topology == "ring":
        following = [*settings.hosts[1:], *settings.hosts[:1]]
        return [[(host, 0), (after, 1)] for host, after in zip(settings.hosts, following, strict=True)]
    return [[(host, settings.port) for host in settings.hosts]]


def subnets(settings: ClusterLinkSettings) -> list[IPv4Network]:
    """Those in use, by their number; fewer where the pool does not hold all."""
    pool = IPv4Network(settings.pool)
    if pool.prefixlen > PREFIX:
        return []
    return [*itertools.islice(pool.subnets(new_prefix=PREFIX), RAILS * len(cables(settings)))]


def rails_of(settings: ClusterLinkSettings, host: str) -> list[Rail]:
    """The rails of a host of this group, by port and rail."""
    numbers = {name: FIRST + number for number, name in enumerate(settings.hosts)}
    free = iter(subnets(settings))
    found = []
    for ends in cables(settings):
        for rail, subnet in enumerate(itertools.islice(free, RAILS)):
            at = {name: subnet.network_address + numbers[name] for name, _ in ends}
            peers = tuple((name, str(address)) for name, address in at.items() if name != host)
            for name, port in ends:
                if name == host:
                    found.append(Rail(port, rail, IPv4Interface((at[host], PREFIX)), mtu_of(settings), peers))
    return sorted(found, key=lambda each: (each.port, each.rail))


def mtu_of(settings: ClusterLinkSettings) -> int | None:
    """The MTU in bytes; None: as it is. A switch may not pass large frames, a cable always does."""
    return settings.mtu or (None if settings.topology == "switch" else JUMBO)


def clash(mine: Sequence[IPv4Network], others: Sequence[IPv4Network]) -> tuple[IPv4Network, IPv4Network] | None:
    """The first two that overlap, or None."""
    return next(((one, two) for one in mine for two in others if one.overlaps(two)), None)
