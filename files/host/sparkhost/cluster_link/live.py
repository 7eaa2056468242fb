"""What the kernel has of a link's devices, and the commands that bring a change of files into force, or back."""

from __future__ import annotations

import ipaddress
import json
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sparkhost.base.pid1 import run
from sparkhost.base.resource import Failed, Refused
from sparkhost.ssh.rollback import is_active

SETTLES = 30.0
"""Seconds for a device to have what its files say."""


@dataclass(frozen=True)
class State:
    """A device as it is. `addresses`: IPv4 with prefix; `is_up`: by the administrator's will, whatever the cable."""

    addresses: Sequence[str]
    mtu: int
    is_up: bool


def asked(*words: str) -> list[dict[str, Any]]:
    """What ip(8) answers, as JSON. Raises Failed where it answers something else."""
    try:
        found = json.loads(run("ip", "-j", *words) or "[]")
    except ValueError as error:
        raise Failed(f"ip {shlex.join(words)} answered no JSON: {error}") from error
    return [each for each in found if isinstance(each, dict)]


def states(names: Iterable[str]) -> dict[str, State]:
    """Every device of these names as it is. Raises Failed where one is gone."""
    found = {each.get("ifname"): each for each in asked("address", "show")}
    result = {}
    for name in names:
        if name not in found:
            raise Failed(f"there is no network device {name} any more")
        device = found[name]
        addresses = sorted(
            f"{a['local']}/{a['prefixlen']}" for a in device.get("addr_info", []) if a.get("family") == "inet"
        )
        result[name] = State(addresses, int(device.get("mtu", 0)), "UP" in device.get("flags", []))
    return result


def check_no_overlap(subnets: Iterable[str], ours: Sequence[str]) -> None:
    """Refuses where another device of this host knows a network that overlaps one of these.

    A default route overlaps everything, and does not count.
    """
    routes = [(each.get("dst"), each.get("dev")) for each in asked("-4", "route", "show", "table", "main")]
    for subnet in map(ipaddress.IPv4Network, subnets):
        for destination, device in routes:
            if device in ours or destination in (None, "default"):
                continue
            if ipaddress.IPv4Network(destination, strict=False).overlaps(subnet):
                raise Refused(
                    f"{subnet} overlaps {destination}, which this host has on {device}: give the links another "
                    "cluster_link.pool"
                )


def settle(wanted: dict[str, tuple[str, int | None]]) -> None:
    """Waits until each device has its address and MTU.

    Raises:
        Failed: one does not within SETTLES seconds.
    """
    until = time.monotonic() + SETTLES
    while left := differences(wanted):
        if time.monotonic() > until:
            raise Failed(f"{next(iter(left))}: {next(iter(left.values()))}, {SETTLES:.0f} s after the change")
        time.sleep(0.3)


def differences(wanted: dict[str, tuple[str, int | None]]) -> dict[str, str]:
    """What of each device is not as wanted (its address and MTU), in a few words."""
    found = {}
    for name, state in states(wanted).items():
        address, mtu = wanted[name]
        if list(state.addresses) != [address]:
            found[name] = f"address {address} (has {', '.join(state.addresses) or 'none'})"
        elif mtu and state.mtu != mtu:
            found[name] = f"MTU {mtu} (has {state.mtu})"
        elif not state.is_up:
            found[name] = "up (is down)"
    return found


def into_force(backend: str, names: Sequence[str], *, by_networkd: bool) -> list[list[str]]:
    """The commands that have the changed files read: for these devices alone where networkd has them."""
    commands = [["netplan", "generate"]] if backend == "netplan" else []
    if by_networkd:
        return [*commands, ["networkctl", "reload"], ["networkctl", "reconfigure", *names]]
    return [["netplan", "apply"]]


def reload_network_manager() -> None:
    """Has NetworkManager forget a keyfile that was put aside."""
    if is_active("NetworkManager.service"):
        run("nmcli", "connection", "reload")


def way_back(commands: Sequence[Sequence[str]], before: dict[str, State]) -> str:
    """A line of sh that, once the files are what they were, makes the devices what they were. Without tabs.

    Where a device is gone there is nothing to do; where systemd-networkd does not answer it is tried again.
    """
    lines = []
    for name in before:
        lines += [f"ip -4 address flush dev {name} scope global || true"]
    lines += ["failed=0", *(f"{shlex.join(command)} || failed=1" for command in commands)]
    for name, state in before.items():
        lines.append(f"ip link set dev {name} mtu {state.mtu} || true")
        lines += [f"ip address replace {address} dev {name} || true" for address in state.addresses]
        if not state.is_up:
            lines.append(f"ip link set dev {name} down || true")
    return "; ".join([*lines, "exit $failed"])
