"""The links between hosts: addresses on both rails, nothing slower or smaller than it is to be, and no way out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from sparkfleet.audit.controls.kit import (
    about_the_fleet,
    counted,
    judged,
    listed,
    malformed,
    not_applicable,
)
from sparkfleet.audit.model import Aspect, Control, Evidence, FleetJudge, Judgement, NoEvidence, Severity
from sparkfleet.settings import HostSettings
from sparkfleet.settings.link_addresses import Rail, rails_of

SPEED = 200_000
"""Mbit/s of one port (ConnectX-7 on a Spark); a switch that negotiates less halves it silently."""
LINE = re.compile(
    r"(\S+/\d+) (\S+) mtu=(\d+|\?) speed=(-?\d+|\?) carrier=([01]|\?)"
    r" rdma=(none|[\w.-]+:(?:[A-Z_]+|\?)) mac=([0-9a-f:]{17}|\?)"
)


@dataclass(frozen=True)
class Seen:
    """One address of a link as the kernel has it."""

    device: str
    mtu: str
    speed: str
    carrier: str
    rdma: str
    mac: str


def rails(settings: HostSettings) -> list[Rail]:
    """Those that this host is to have. Raises NoEvidence where its group is not known."""
    link = settings.cluster_link
    if not link.host:
        raise NoEvidence("cluster_link has no hosts: its group is not known")
    return rails_of(link, link.host)


def seen(evidence: Evidence) -> dict[str, Seen]:
    """Address → its device. Raises NoEvidence where the probe's lines are others."""
    found = {}
    for line in counted(evidence, "links", "addresses"):
        match = LINE.fullmatch(line)
        if not match:
            raise malformed(evidence, "links")
        found[match[1]] = Seen(*match.groups()[1:])
    return found


def each(evidence: Evidence, settings: HostSettings) -> list[tuple[Rail, Seen | None]]:
    found = seen(evidence)
    return [(rail, found.get(str(rail.address))) for rail in rails(settings)]


def both_rails(evidence: Evidence, settings: HostSettings) -> Judgement:
    wrong, devices = [], Counter[str]()
    for rail, one in each(evidence, settings):
        devices.update([one.device] if one else [])
        if one is None:
            wrong.append(f"no device has {rail.address}")
        elif one.carrier != "1":
            wrong.append(f"{one.device} ({rail.address}) has no carrier")
    wrong += [f"{name} has {count} of the addresses" for name, count in devices.items() if count > 1]
    wanted = f"{len(rails(settings))} addresses, each on a device of its own with carrier"
    return judged(not wrong, wanted, listed(wrong) or ", ".join(sorted(devices)))


def large_enough(evidence: Evidence, settings: HostSettings) -> Judgement:
    mtu = rails(settings)[0].mtu
    wanted = f"MTU {mtu}" if mtu else "an MTU as the switch has it"
    found = {one.device: one.mtu for _, one in each(evidence, settings) if one}
    if mtu is None:
        return not_applicable(wanted, "cluster_link.mtu is not set, and the topology is switch")
    wrong = [f"{device} has {value}" for device, value in found.items() if value != str(mtu)]
    return judged(bool(found) and not wrong, wanted, listed(wrong) or ", ".join(sorted(found)) or "no device")


def fast(evidence: Evidence, settings: HostSettings) -> Judgement:
    wrong = []
    for rail, one in each(evidence, settings):
        if one is None:
            wrong.append(f"no device has {rail.address}")
        elif not one.speed.isdecimal() or int(one.speed) < SPEED:
            wrong.append(f"{one.device} has {one.speed} Mbit/s")
        elif not one.rdma.endswith(":ACTIVE"):
            wrong.append(f"{one.device} has RDMA {one.rdma}")
    return judged(not wrong, f"{SPEED} Mbit/s and RDMA active on each rail", listed(wrong) or "all of them")


def no_way_out(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Only the subnets themselves; the kernel's own route to each has the subnet as its destination."""
    own = {str(rail.subnet) for rail in rails(settings)}
    lines = counted(evidence, "link_routes", "routes")
    wrong = []
    for line in lines:
        match = re.fullmatch(r"(default|[0-9./]+) (\S+)", line)
        if not match:
            raise malformed(evidence, "link_routes")
        destination = match[1] if match[1] == "default" else str(ip_network(match[1], strict=False))
        if destination not in own:
            wrong.append(line)
    return judged(not wrong, "no route over the links but to their subnets", listed(wrong) or f"{len(lines)} routes")


def at_boot(evidence: Evidence, settings: HostSettings) -> Judgement:
    said = Counter[str]()
    where: dict[str, list[str]] = {}
    for line in counted(evidence, "links_configured", "addresses"):
        address, _, path = line.partition(" ")
        if not path.startswith("/"):
            raise malformed(evidence, "links_configured")
        said[address] += 1
        where.setdefault(address, []).append(path)
    wrong = []
    for rail in rails(settings):
        count = said[str(rail.address)]
        if count != 1:
            wrong.append(f"{rail.address} in {', '.join(where.get(str(rail.address), ['no file']))}")
    return judged(not wrong, "each address in one file, from which a boot gives it", listed(wrong) or "all of them")


def unique() -> FleetJudge:
    def judge(hosts: Mapping[str, Evidence]) -> Judgement:
        wanted = "addresses of its own for each host"
        if len(hosts) < 2:
            return not_applicable(wanted, "one host: there is nothing to compare")
        owners: dict[str, list[str]] = {}
        linked = 0
        for name, evidence in hosts.items():
            try:
                for address in seen(evidence):
                    owners.setdefault(address, []).append(name)
                linked += not evidence.text("links").startswith("0 ")
            except NoEvidence as error:
                raise NoEvidence(f"{name}: {error}") from error
        if linked < 2:
            return not_applicable(wanted, f"{linked} hosts have links of ours: there is nothing to compare")
        twice = [f"{', '.join(names)} share {address}" for address, names in owners.items() if len(names) > 1]
        return judged(bool(owners) and not twice, wanted, listed(twice) or f"{len(owners)} addresses")

    return judge


def control(
    number: int,
    title: str,
    severity: Severity,
    aspect: Aspect,
    texts: tuple[str, str, str],
    evidence: str,
    judge: object,
) -> Control:
    """A control of the links. `texts`: why, source, and what to do by hand."""
    of_hosts = judge if number == OF_FLEET else None
    return Control(
        id=f"SPK-LINK-{number:02}",
        title=title,
        severity=severity,
        measure="cluster_link",
        aspect=aspect,
        why=texts[0],
        source=texts[1],
        manual_fix=texts[2],
        evidence=(evidence,),
        judge=about_the_fleet if of_hosts else judge,  # type: ignore[arg-type]
        fleet_judge=of_hosts,  # type: ignore[arg-type]
    )


OF_FLEET = 6
PLAYBOOK = "NVIDIA/dgx-spark-playbooks, nvidia/multi-sparks-through-switch and connect-three-sparks"

CONTROLS = (
    control(
        1,
        "Both rails of each link have their addresses, and carrier",
        Severity.HIGH,
        Aspect.RUNNING,
        (
            "NCCL finds RDMA by a rail's address: without one, or with its cable out, a job over hosts fails or has "
            "half of the speed.",
            PLAYBOOK,
            "look at the cable; deploy the measure cluster_link",
        ),
        "links",
        both_rails,
    ),
    control(
        2,
        "The links' MTU is the one that was asked for",
        Severity.MEDIUM,
        Aspect.RUNNING,
        (
            "With 1500 RoCE sends pieces of 1024 bytes; with two values on one link large packets are lost in silence.",
            "ip-link(8); eugr/spark-vllm-docker, docs/NETWORKING.md",
            "deploy the measure cluster_link to the whole group",
        ),
        "links",
        large_enough,
    ),
    control(
        3,
        "The links run at full speed, with RDMA active",
        Severity.HIGH,
        Aspect.RUNNING,
        (
            "A switch that negotiates 100 Gbit/s, or RDMA that is down, costs most of the bandwidth and no message.",
            PLAYBOOK,
            "fix the speed at the switch; ibv_devinfo shows RDMA's state",
        ),
        "links",
        fast,
    ),
    control(
        4,
        "Nothing but the links' own subnets is sent over them",
        Severity.HIGH,
        Aspect.RUNNING,
        (
            "A default route over a link sends what is for the world to a host that does not pass it on.",
            "ip-route(8)",
            "take gateway and routes out of the file that has them",
        ),
        "link_routes",
        no_way_out,
    ),
    control(
        5,
        "A boot gives the links their addresses, from one file",
        Severity.MEDIUM,
        Aspect.SURVIVES_REBOOT,
        (
            "What was set by ip(8) is gone after a boot; two files of netplan's are joined, and give a device both "
            "addresses.",
            "netplan(5)",
            "remove the other file, or deploy the measure cluster_link",
        ),
        "links_configured",
        at_boot,
    ),
    control(
        OF_FLEET,
        "No address of the links is on two hosts",
        Severity.HIGH,
        Aspect.RUNNING,
        (
            "Two hosts with one address lose connections by turns.",
            "RFC 5227",
            "deploy the measure cluster_link to the whole group",
        ),
        "links",
        unique(),
    ),
)
