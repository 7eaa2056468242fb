"""What the kernel has of the links between hosts: found by their addresses, not by any file of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

FILES = ("/etc/netplan", "/etc/systemd/network", "/etc/NetworkManager/system-connections")


def links(parameters: Parameters) -> Mapping[str, Seen]:
    """For each address of a link: its device, MTU, speed in Mbit/s, carrier, RDMA device and state; and routes."""
    wanted = parameters.get("link_addresses") or []
    command = "ip -j -4 address show; cat /sys/class/net/*/{mtu,speed,carrier} /sys/class/infiniband/*/ports/1/state"
    if not wanted:  # said, so that hosts of a fleet can be compared: a probe that says nothing is no evidence
        return {"links": Seen(command, "0 addresses\n")}
    shown = run(("ip", "-j", "-4", "address", "show"))
    if shown.rc:
        return {"links": shown._replace(command=command)}
    lines, devices = [f"{len(wanted)} addresses"], set()
    for device in json.loads(shown.output):
        for one in device.get("addr_info", []):
            address = f"{one.get('local')}/{one.get('prefixlen')}"
            if address in wanted:
                devices.add(device["ifname"])
                lines.append(f"{address} {state(device['ifname'])}")
    return {
        "links": Seen(command, "\n".join(lines) + "\n"),
        "link_routes": routes(sorted(devices)),
        "link_neighbours": neighbours(sorted(devices)),
    }


def state(name: str) -> str:
    """One device in words of `key=value`."""
    folder = Path("/sys/class/net") / name
    values = {key: read(str(folder / key)).output.strip() or "?" for key in ("mtu", "speed", "carrier")}
    mac = read(str(folder / "address")).output.strip().lower() or "?"
    return f"{name} " + " ".join(f"{key}={value}" for key, value in values.items()) + f" rdma={rdma(name)} mac={mac}"


def rdma(name: str) -> str:
    """The RDMA device of a network device with its state, such as `rocep1s0f1:ACTIVE`; `none` without one."""
    for device in sorted(Path("/sys/class/infiniband").glob("*")):
        soft = read(str(device / "ports/1/gid_attrs/ndevs/0")).output.strip()
        if (device / "device/net" / name).exists() or soft == name:
            found = re.search(r"[A-Z_]+", read(str(device / "ports/1/state")).output)
            return f"{device.name}:{found[0] if found else '?'}"
    return "none"


def routes(devices: list[str]) -> Seen:
    """Where packets go by these devices: `N routes` and a line of destination and device each."""
    found = []
    for name in devices:
        shown = run(("ip", "-j", "-4", "route", "show", "dev", name))
        if shown.rc:
            return shown
        found += [f"{one.get('dst')} {name}" for one in json.loads(shown.output or "[]")]
    return Seen("ip -4 route show dev DEVICE", "\n".join([f"{len(found)} routes", *found]) + "\n")


def neighbours(devices: list[str]) -> Seen:
    """Who was heard on these devices: `N neighbours`, and a line of device, address and MAC each."""
    found = []
    for name in devices:
        shown = run(("ip", "-j", "-4", "neighbour", "show", "dev", name))
        if shown.rc:
            return shown
        those = json.loads(shown.output or "[]")
        found += [f"{name} {one['dst']} {one['lladdr'].lower()}" for one in those if one.get("lladdr")]
    return Seen("ip -4 neighbour show dev DEVICE", "\n".join([f"{len(found)} neighbours", *found]) + "\n")


def configured(parameters: Parameters) -> Mapping[str, Seen]:
    """Which files say an address of a link: `N addresses`, and a line for each file that does."""
    wanted = parameters.get("link_addresses") or []
    if not wanted:
        return {}
    lines = [f"{len(wanted)} addresses"]
    for folder in FILES:
        for path in sorted(Path(folder).glob("*")):
            words = set(re.split(r"[\s\"'\[\],;=]+", uncommented(read(str(path)).output)))
            lines += [f"{address} {path}" for address in wanted if address in words]
    command = f"grep -r ADDRESS {' '.join(FILES)}"
    return {"links_configured": Seen(command, "\n".join(lines) + "\n")}


def uncommented(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))


LOOKS: dict[str, Looks] = {"links": links, "links_configured": configured}
