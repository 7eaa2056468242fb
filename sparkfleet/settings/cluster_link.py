"""The settings of the measure cluster_link."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sparkfleet.settings.base import Measure
from sparkfleet.settings.link_addresses import PREFIX, RAILS, cables, subnets
from sparkfleet.settings.problems import contradiction, wrong
from sparkfleet.settings.units import Seconds
from sparkfleet.settings.values import HostName, Means

MOST = 8


def _pool(value: str) -> str:
    try:
        pool = IPv4Network(value)
    except ValueError:
        raise wrong("a private IPv4 network such as 10.20.0.0/16") from None
    if not pool.is_private or pool.is_loopback or pool.is_link_local or pool.prefixlen > PREFIX - 1:
        raise wrong(f"a private IPv4 network such as 10.20.0.0/16, with room for two /{PREFIX} at least")
    return str(pool)


def _device(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", value):
        raise wrong("the name of a network device, such as enp1s0f1np1")
    return value


def _outlet(value: Any) -> int:
    # Not Literal[0, 1]: True equals 1 to Python, and one message serves every mistake.
    if type(value) is not int or value not in (0, 1):
        raise wrong("0, next to the RJ45, or 1, the outer one")
    return value


Outlet = Annotated[int, BeforeValidator(_outlet), Means("0 or 1")]
Pool = Annotated[str, AfterValidator(_pool), Means("IPv4 network")]
Device = Annotated[str, AfterValidator(_device), Means("network device")]


class ClusterLinkSettings(Measure):
    """The fast links between the hosts of a group: two rails, each with a subnet of its own, kept only when proved."""

    of_group: ClassVar[bool] = True

    # Not `present`, unlike most measures': links are for hosts that have a cable between them.
    state: Literal["present", "unmanaged", "absent"] = Field(
        default="unmanaged",
        description="`present` gives the links their addresses, `unmanaged` leaves whatever is on the host alone, "
        "`absent` takes ours away, and puts back what was there.",
    )
    topology: Literal["direct", "ring", "switch"] = Field(
        default="direct",
        description="`direct`: one cable between two hosts; `ring`: port 0 of each host to port 1 of the next, three "
        "to eight; `switch`: the same port of each host to a switch, two to eight.",
    )
    port: Outlet = Field(
        default=1,
        description="The port that the cable is in, for `direct` and `switch`: 0 is next to the RJ45, 1 the outer one. "
        "A ring uses both.",
    )
    pool: Pool = Field(
        default="10.20.0.0/16",
        description="Where the addresses come from: a /24 for each rail of each cable, from the first on. No other "
        "network that a host knows may overlap those.",
    )
    mtu: int | None = Field(
        default=None,
        ge=1280,
        le=9216,
        description="Largest packet in bytes, the same at all ends. Without a value 9000 on `direct` and `ring`; on "
        "`switch` it is left as it is.",
    )
    devices: list[Device] = Field(
        default=[],
        description="The network devices where the hardware does not tell: the two rails of the port, or in a ring "
        "those of port 0 and then of port 1. Without a value they are read from /sys/class/infiniband.",
    )
    take_over: bool = Field(
        default=False,
        description="Whether files of others that configure these devices alone are put aside. They come back with "
        "`absent`. Without it such a file is named and refused.",
    )
    environment: bool = Field(
        default=True,
        description="Whether NCCL is told of the links (/etc/nccl.conf), other programs by /etc/sparkfleet/fabric.env, "
        "and sessions may pin as much memory as RDMA needs.",
    )
    confirm_within: Seconds = Field(
        default=Seconds(180),
        description="How long the host waits for the proof (a new login, and every peer on each rail) before it takes "
        "a change back by itself; 30s to 1h.",
    )
    host: HostName | None = Field(
        default=None, description="This host's name. The loader fills it in; only an operation of your own gives it."
    )
    hosts: list[HostName] = Field(
        default=[],
        description="All hosts of the group, in order. The loader fills them in; only an operation of your own gives "
        "them.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not 30 <= self.confirm_within <= 3600:
            raise contradiction("confirm_within", "is out of range, expected 30s to 1h")
        needed = 2 * RAILS if self.topology == "ring" else RAILS
        if self.devices and (len(self.devices) != needed or len(set(self.devices)) != needed):
            raise contradiction("devices", f"expected {needed} different devices for topology {self.topology}")
        if self.hosts and (problem := group_problem(self)):
            raise contradiction(*problem)
        return self


def group_problem(settings: ClusterLinkSettings) -> tuple[str, str] | None:
    """The key that does not fit the group's hosts, and why; or None."""
    count = len(settings.hosts)
    least, most = {"direct": (2, 2), "ring": (3, MOST), "switch": (2, MOST)}[settings.topology]
    if len(set(settings.hosts)) != count:
        return "hosts", "has a host twice"
    if not least <= count <= most:
        expected = str(least) if least == most else f"{least} to {most}"
        return "topology", f"got {settings.topology!r} for {count} hosts, expected {expected} of them"
    if settings.host not in settings.hosts:
        return "host", "expected one of hosts"
    if len(subnets(settings)) < (wanted := RAILS * len(cables(settings))):
        return "pool", f"got {settings.pool!r}, which has no room for {wanted} networks /{PREFIX}"
    return None
