"""What NCCL, UCX, Gloo and MPI are told of the links: computed from what is there, not from names in a manual.

How it works: NCCL reads /etc/nccl.conf in every process (NCCL's page on environment variables); the others know only
variables, which stand in a file that a launcher or a unit takes in. Bootstrap goes over the management network: it is
there when a cable is not. The GID index is that of the RoCE v2 entry with the rail's IPv4 address: 3 is usual, 5 was
seen. In a ring each host reaches only its neighbours, so NCCL must choose devices by subnet and not join them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface
from typing import Any

from sparkhost.base.files import File
from sparkhost.cluster_link import hardware, live
from sparkhost.cluster_link.hardware import Nic, word

NCCL = "/etc/nccl.conf"
FABRIC = "/etc/sparkfleet/fabric.env"
LARGE_RING = 4
"""Hosts from which on NCCL must send along the ring: further ones do not reach each other."""


def files(rails: Sequence[dict[str, Any]], nics: Sequence[Nic], asked: Mapping[str, Any]) -> list[File]:
    """Both files as this host's devices are now. `asked`: `ring`, how many hosts it has, 0 for another topology, and
    what stands above each file (`nccl`, `fabric`).
    """
    addresses = [str(rail["address"]).partition("/")[0] for rail in rails]
    management = default_device([nic.name for nic in nics]) or nics[0].name
    nccl = nccl_values(nics, addresses, management, int(asked["ring"]))
    fabric = fabric_values(nics, addresses, management)
    return [File(NCCL, asked["nccl"] + lines(nccl)), File(FABRIC, asked["fabric"] + lines(fabric))]


def nccl_values(nics: Sequence[Nic], addresses: Sequence[str], management: str, ring: int) -> dict[str, str]:
    """`=` in front: exactly these names, no prefixes (NCCL's page on environment variables)."""
    values = {"NCCL_SOCKET_IFNAME": f"={management}"}
    if with_rdma := [nic.rdma for nic in nics if nic.rdma]:
        values["NCCL_IB_HCA"] = f"={','.join(with_rdma)}"
    if ring:
        values |= {"NCCL_IB_SUBNET_AWARE_ROUTING": "1", "NCCL_NET_PLUGIN": "none", "NCCL_IB_MERGE_NICS": "0"}
        return values | ({"NCCL_ALGO": "Ring"} if ring >= LARGE_RING else {})
    indexes = {gid_index(nic.rdma, address) for nic, address in zip(nics, addresses, strict=True) if nic.rdma}
    # One number is for all devices: where theirs differ, NCCL's own choice is better than a wrong one.
    if len(indexes) == 1 and (index := indexes.pop()) is not None:
        values["NCCL_IB_GID_INDEX"] = str(index)
    return values


def fabric_values(nics: Sequence[Nic], addresses: Sequence[str], management: str) -> dict[str, str]:
    over_rdma = [f"{nic.rdma}:1" for nic in nics if nic.rdma]
    return {
        "GLOO_SOCKET_IFNAME": management,
        "TP_SOCKET_IFNAME": management,
        "OMPI_MCA_btl_tcp_if_include": management,
        "UCX_NET_DEVICES": ",".join([*over_rdma, management]),
        "SPARK_LINK_DEVICES": ",".join(nic.name for nic in nics),
        "SPARK_LINK_ADDRESSES": ",".join(addresses),
    }


def gid_index(rdma: str, address: str) -> int | None:
    """The entry of a device's table that is RoCE v2 and has this IPv4 address; None where there is none."""
    port = hardware.SYS / "class/infiniband" / rdma / "ports/1"
    wanted = "0000:0000:0000:0000:0000:ffff:" + ":".join(f"{n:04x}" for n in halves(address))
    for path in sorted((port / "gids").glob("*"), key=lambda path: int(path.name)):
        if word(path) == wanted and word(port / "gid_attrs/types" / path.name) == "RoCE v2":
            return int(path.name)
    return None


def halves(address: str) -> tuple[int, int]:
    packed = IPv4Interface(address).ip.packed
    return int.from_bytes(packed[:2], "big"), int.from_bytes(packed[2:], "big")


def default_device(but: Sequence[str]) -> str:
    """The device of the default route, the management network's; "" where there is none but on a link."""
    routes = live.asked("-4", "route", "show", "default")
    return next((str(each["dev"]) for each in routes if each.get("dev") and each["dev"] not in but), "")


def lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())
