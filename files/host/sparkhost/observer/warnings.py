"""What the observer warns of, in words: each with what to do."""

from __future__ import annotations

from sparkhost.base.units import show_size
from sparkhost.observer import memory, orphans
from sparkhost.observer.alarms import Alarm

TELL_EVERY = 600.0
"""Seconds between two lines about such bursts, which may come one after the other."""


def short(meminfo: dict[str, int]) -> Alarm:
    available, at_once = meminfo["MemAvailable"], memory.at_once(meminfo) or 0
    locked = max(meminfo.get("Unevictable", 0), meminfo.get("Mlocked", 0))
    return Alarm(
        "at_once",
        "",
        f"{show_size(available)} of memory are available, but {show_size(at_once)} at once, and "
        f"{show_size(locked)} are locked",
        "start what takes much memory with spark-run --drop-cache, or end what has locked it",
    )


def burst(at: float, lines: int, available: str) -> Alarm:
    return Alarm(
        "driver_burst",
        str(int(at // TELL_EVERY)),
        f"the NVIDIA driver was refused memory {lines} times in a burst, with {available} available",
        "save what runs, and start nothing large before it has ended: hosts have hung after such bursts",
    )


def killed(times: int) -> Alarm:
    return Alarm(
        "driver_kill",
        str(times),
        f"the kernel's OOM killer ran for the NVIDIA driver, {times} times since the host was started",
        "journalctl -k says who was killed; raise watchdog.term_below, so that the watchdog acts first",
    )


def restarting(name: str, times: int) -> Alarm:
    word = name.partition(" ")[2]
    remedy = (
        f"docker logs {word} says why; docker update --restart=no {word} ends it (podman: the same)"
        if name.startswith("container ")
        else f"journalctl -u {name} says why; systemctl stop {name} ends the loop"
    )
    return Alarm("restarts", name, f"{name} was started again {times} times within an hour", remedy)


def nobodys(size: int) -> Alarm:
    return Alarm(
        "unaccounted",
        "",
        f"{show_size(size)} of memory are held by nobody, and no program is on a GPU",
        "reboot this host when it is idle: what the driver has not given back by now it does not give back",
    )


def orphan(seen: orphans.Seen) -> Alarm:
    return Alarm(
        "orphan",
        str(seen.pid),
        f"{seen.name} (process {seen.pid}) holds {show_size(seen.gpu)} of GPU memory, and its engine has gone",
        f"its owner calls spark-run clean, or root kill {seen.pid}",
    )
