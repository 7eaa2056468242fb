"""The fast links between hosts: two rails, each with a subnet of its own, kept only when every peer answers.

Why: a Spark's second port is for another Spark. Half of the speed is lost where only one rail has an address, or both
share a subnet; a boot hangs where a cable is out and the file does not say `optional`; and a wrong file can take the
host's own network with it. So the addresses are made from the fleet file, and the change is guarded as one to SSH is
(docs/cluster_link.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparkfleet.settings import ClusterLinkSettings
from sparkfleet.settings.link_addresses import Rail, rails_of
from sparkhost.base.files import File, NoFile
from sparkhost.base.resource import Resource
from sparkhost.base.systemd import UNIT_DIRECTORY
from sparkhost.cluster_link.guarded import TOKEN_END, GuardedLink
from tasks.lib.templates import render
from tasks.ssh import RUN

# RDMA pins the memory that it sends from: by PAM for logins, sudo and cron, by systemd for users' own services.
MEMLOCK = {
    "/etc/security/limits.d/60-sparkfleet-cluster-link.conf": "cluster_link/limits.conf",
    f"{UNIT_DIRECTORY}/user@.service.d/60-sparkfleet-cluster-link.conf": "cluster_link/memlock.conf",
}


def apply(settings: ClusterLinkSettings) -> Sequence[Resource]:
    """Files and devices as the plan of the group says, guarded."""
    rails = rails_of(settings, settings.host) if settings.host else []
    return (
        guarded(settings, rails),
        *(File(path, render(template)) for path, template in MEMLOCK.items() if settings.environment),
        *(NoFile(path) for path in MEMLOCK if not settings.environment),
    )


def remove(settings: ClusterLinkSettings) -> Sequence[Resource]:
    """Our files gone, those of others back; guarded as well, though nobody needs to answer on a link that is gone."""
    return (guarded(settings, []), *map(NoFile, MEMLOCK))


def guarded(settings: ClusterLinkSettings, rails: Sequence[Rail]) -> GuardedLink:
    return GuardedLink(
        token=f"{RUN}{TOKEN_END}",
        rails=[as_request(rail) for rail in rails],
        netplan=render("cluster_link/netplan.yaml", rails=[as_request(rail) for rail in rails]),
        devices=[*settings.devices],
        take_over=settings.take_over,
        confirm_within=float(settings.confirm_within),
        environment=told(settings) if settings.environment else {},
    )


def told(settings: ClusterLinkSettings) -> dict[str, Any]:
    """What the host makes the files for NCCL and others of."""
    ring = len(settings.hosts) if settings.topology == "ring" else 0
    return {
        "ring": ring,
        "nccl": render("cluster_link/nccl.conf.header"),
        "fabric": render("cluster_link/fabric.env.header"),
    }


def as_request(rail: Rail) -> dict[str, Any]:
    """A rail as JSON; the host puts the device's name where `@PORT.RAIL@` stands."""
    device = f"@{rail.port}.{rail.rail}@"
    address = str(rail.address)
    return {
        "port": rail.port,
        "rail": rail.rail,
        "device": device,
        "address": address,
        "mtu": rail.mtu,
        "peers": [[*peer] for peer in rail.peers],
        "text": render("cluster_link/rail.network", device=device, address=address, mtu=rail.mtu),
    }
