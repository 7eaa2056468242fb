"""Which network device is which rail of which port: read from the hardware, never from names.

How it works: a ConnectX-7 on a Spark hangs on two PCIe links, and shows each of its two ports on both. A port is a
PCI function (`.0`, `.1`), a rail one of the PCI domains: 0000:01:00.1 and 0002:01:00.1 are the two rails of port 1.
The kernel says which network device belongs to which RDMA device (`/sys/class/infiniband/*/device/net`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.base.resource import Refused

SYS = Path("/sys")
RAILS = 2


@dataclass(frozen=True)
class Nic:
    """A network device. `mac`: lower case; `rdma`: its RDMA device, "" without one."""

    name: str
    mac: str
    rdma: str = ""


def nics(wanted: Sequence[tuple[int, int]], named: Sequence[str] = ()) -> dict[tuple[int, int], Nic]:
    """The device of each port and rail. `named`: the devices where a person says which they are, in that order.

    Raises:
        Refused: the hardware has others than two rails a port, or none; or a named device is not there.
    """
    if named:
        lacking = [name for name in named if not (SYS / "class/net" / name).exists()]
        if lacking:
            raise Refused(f"there is no network device {lacking[0]} (cluster_link.devices); there are: {there()}")
        return {which: nic(name) for which, name in zip(sorted(wanted), named, strict=True)}
    found = by_port()
    for port in sorted({port for port, _ in wanted}):
        if len(names := found.get(port, [])) != RAILS:
            raise Refused(
                f"port {port} has {len(names)} network devices with RDMA ({', '.join(names) or 'none'}), expected "
                f"{RAILS}: name them by cluster_link.devices; there are: {there()}"
            )
    return {(port, rail): nic(found[port][rail]) for port, rail in wanted}


def by_port() -> dict[int, list[str]]:
    """The network devices of each PCI function that has RDMA, by PCI domain and bus."""
    found: dict[int, list[tuple[str, str]]] = {}
    for device in sorted((SYS / "class/infiniband").glob("*")):
        address = (device / "device").resolve().name
        domain, _, function = address.rpartition(".")
        for net in sorted((device / "device/net").glob("*")):
            if function.isdecimal():
                found.setdefault(int(function), []).append((domain, net.name))
    return {port: [name for _, name in sorted(names)] for port, names in found.items()}


def nic(name: str) -> Nic:
    return Nic(name, word(SYS / "class/net" / name / "address").lower(), rdma_of(name))


def rdma_of(name: str) -> str:
    """The RDMA device of a network device, "" without one; soft ones too, which have no PCI device."""
    for device in sorted((SYS / "class/infiniband").glob("*")):
        if (device / "device/net" / name).exists() or word(device / "ports/1/gid_attrs/ndevs/0") == name:
            return device.name
    return ""


def there() -> str:
    """The network devices of this host but for the loopback, for a message."""
    names = sorted(path.name for path in (SYS / "class/net").glob("*") if path.name != "lo")
    return ", ".join(names[:12]) or "none"


def has_carrier(name: str) -> bool | None:
    """Whether a cable with a living end is in; None where the device is down, which cannot tell."""
    found = word(SYS / "class/net" / name / "carrier")
    return None if found == "" else found == "1"


def word(path: Path) -> str:
    """A file of one word; "" where it is not there or cannot be read, as `carrier` of a device that is down."""
    try:
        return bounded.read_text(path, 256).strip()
    except OSError:
        return ""
