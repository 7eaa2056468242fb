"""What there is to see of a host, a function each. All of it can be read by every user, but for the post-mortems.

Sizes are bytes, times are seconds since the epoch, temperatures are °C.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.base import gpu_sample, small_files
from sparkhost.launcher import admission
from sparkhost.launcher.gpu import STALE
from sparkhost.launcher.holders import Holder, user_name
from sparkhost.observer import told
from sparkhost.watchdog import postmortem
from sparkhost.watchdog.alive import absence
from sparkhost.watchdog.report import explain, headline

EVENTS, MOST_JOBS, MOST_OWNERS, MOST_LINKS = 10, 64, 12, 8
WHY_LINES, LONGEST = 16, 300
"""Of an event's explanation: lines, and characters of each."""
REST = "others"
"""Owners beyond `MOST_OWNERS`, as one."""
APPLIED_MOST = 1 << 20


class Places(NamedTuple):
    """Where a host's files are; tests have others."""

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")
    system: Path = Path("/sys")
    run: Path = Path("/run")
    etc: Path = Path("/etc")
    state: Path = Path("/var/lib/sparkfleet")

    @property
    def gpu(self) -> Path:
        return self.run / "sparkfleet/gpu/sample.json"

    @property
    def watchdog(self) -> Path:
        return self.run / "sparkfleet/watchdog/state.json"

    @property
    def events(self) -> Path:
        return self.state / "watchdog" / postmortem.EVENTS

    @property
    def observer(self) -> Path:
        return self.run / "sparkfleet/observer/state.json"


def short(text: object, most: int = LONGEST) -> str:
    """A text as one line without anything that a terminal acts on."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:most])


def text_of(path: Path, limit: int = 4096) -> str:
    """A small file's text, stripped; "" where it cannot be read."""
    try:
        return small_files.read(str(path), limit).decode(errors="replace").strip()
    except OSError:
        return ""


def memory(meminfo: dict[str, int], sample: gpu_sample.Sample) -> dict[str, Any]:
    """The host's memory. `gpu`: what programs hold of it on the GPU; `cpu`: all else that is in use.

    `gpu` is None where nobody knows; `cpu` then holds both. `gpu_own`: of GPUs that have their own.
    """
    total, available = meminfo.get("MemTotal", 0), meminfo.get("MemAvailable", 0)
    gpu = None if sample.problem else sum(sample.unified.values())
    used = max(0, total - available)
    return {
        "total": total,
        "available": available,
        "free": meminfo.get("MemFree", 0),
        "cpu": max(0, used - (gpu or 0)),
        "gpu": gpu,
        "gpu_own": sum(sample.own.values()),
    }


def gpus(path: Path) -> list[dict[str, Any]]:
    """Name, clock (MHz), highest clock and temperature of each GPU, where the sampler tells them."""
    try:
        devices = json.loads(small_files.read(str(path), gpu_sample.LARGEST))["devices"]
        return [
            {"name": short(device.get("name", ""), 60)}
            | {key: device[key] for key in ("clock", "most", "temperature") if type(device.get(key)) is int}
            for device in devices[:8]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def temperature(system: Path) -> int | None:
    """The warmest sensor of the host (Documentation/driver-api/thermal/sysfs-api.rst: thousandths of a °C)."""
    found = []
    for path in sorted(system.glob("class/thermal/thermal_zone*/temp"))[:32]:
        with contextlib.suppress(ValueError):
            found.append(int(text_of(path, 32)) // 1000)
    sane = [degrees for degrees in found if -40 < degrees < 200]
    return max(sane) if sane else None


def floor(path: Path, proc: Path) -> dict[str, Any]:
    """Below what the watchdog asks and kills, and why it does not: "" where it does."""
    found: dict[str, Any] = {"term": None, "kill": None, "problem": short(absence(path, proc))}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        policy = told.load(str(path))["policy"]
        found |= {"term": int(policy["term_below"]), "kill": int(policy["kill_below"])}
    return found


def jobs(found: Iterable[Holder], run: Path, cgroups: Path) -> list[dict[str, Any]]:
    """The launcher's jobs, the largest first. `name` is what its owner calls it, "" where that is nothing."""
    result = []
    for holder in found:
        if holder.what.startswith("job "):
            id_ = holder.what.removeprefix("job ")
            sizes = {"promise": holder.promise, "cpu": holder.cpu, "gpu": holder.gpu}
            result.append({"id": id_, "owner": short(holder.user, 64), "name": _name(id_, run, cgroups), **sizes})
    return result[:MOST_JOBS]


def _name(id_: str, run: Path, cgroups: Path) -> str:
    """From the description that the launcher gave the unit; it has checked the name."""
    for cgroup in (cgroups / "training.slice").glob(f"spark-job-*-{id_}.service"):
        for line in text_of(run / "systemd/transient" / cgroup.name).splitlines():
            if line.startswith("Description=Training job "):
                word = line.split(" ")[2]
                return "" if word == id_ else short(word, 48)
    return ""


def owners(found: Iterable[Holder]) -> list[dict[str, Any]]:
    """Memory by owner, the largest first; the smaller ones together as `REST`."""
    sums: dict[str, list[int]] = {}
    for holder in found:
        name = f"container {holder.what.partition(' ')[2]}" if holder.user == "-" else holder.user
        both = sums.setdefault(short(name, 64), [0, 0])
        both[0] += holder.cpu
        both[1] += holder.gpu or 0
    ranked = sorted(sums.items(), key=lambda item: -sum(item[1]))
    named, rest = ranked[:MOST_OWNERS], ranked[MOST_OWNERS:]
    if rest:
        named.append((REST, [sum(size[0] for _, size in rest), sum(size[1] for _, size in rest)]))
    return [{"owner": name, "cpu": size[0], "gpu": size[1]} for name, size in named]


def waiting(run: Path) -> list[dict[str, Any]]:
    """How many jobs of whom wait for room."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    count = Counter(ticket.uid for ticket in admission.queue(run / "sparkfleet", now))
    return [{"owner": short(user_name(uid), 64), "jobs": jobs} for uid, jobs in count.most_common(MOST_OWNERS)]


def events(path: Path) -> list[dict[str, Any]]:
    """The watchdog's last events that this user may read, the latest first; the first two kills explained."""
    found: list[dict[str, Any]] = []
    explained = 0
    for record in postmortem.readable(path.parent):
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            event = brief(record)
            found.append(event)
            if record["event"] in ("term", "kill") and explained < 2:
                explained += 1
                event["why"] = [short(line) for line in explain(record)[:WHY_LINES]]
        if len(found) == EVENTS:
            break
    return found


def brief(record: dict[str, Any]) -> dict[str, Any]:
    """An event in a few fields. Raises KeyError, TypeError or ValueError where it is another version's."""
    victim = record["victim"] or {}
    return {
        "at": float(record["time"]),
        "event": short(record["event"], 16),
        "name": short(victim.get("name", ""), 100),
        "owner": short(user_name(int(victim["owner"])), 64) if "owner" in victim else "",
        "size": int(victim.get("size", 0)),
        "reason": short(record.get("reason", "")),
        "dry_run": bool(record.get("dry_run")),
        "text": short(headline(record)),
    }


def release(state: Path, etc: Path) -> dict[str, Any]:
    """What was last deployed here, and the system: `version` "" where nothing was."""
    found: dict[str, Any] = {"version": "", "at": "", "result": "", "system": "", "kernel": os.uname().release}
    for line in text_of(etc / "os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            found["system"] = short(line.partition("=")[2].strip("\"'"), 80)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        last = json.loads(small_files.read(str(state / "applied.json"), APPLIED_MOST))["deploys"][-1]
        results = [str(measure["result"]) for measure in last["measures"].values()]
        worst = next(
            (word for word in ("failed", "refused") if word in results), "ok" if last["ended"] else "cut short"
        )
        found |= {"version": short(last["version"], 40), "at": short(last["at"], 40), "result": worst}
    return found


def reboot(run: Path) -> str:
    """Why a reboot is pending, as Debian's and Ubuntu's packages say it; "" where none is."""
    if not (run / "reboot-required").exists():
        return ""
    packages = text_of(run / "reboot-required.pkgs").split()
    return f"for {', '.join(short(one, 60) for one in dict.fromkeys(packages[:4]))}" if packages else "pending"


def links(system: Path) -> list[dict[str, Any]]:
    """State and rate of the RDMA devices' first ports (Documentation/ABI/stable/sysfs-class-infiniband)."""
    found = []
    for device in sorted(system.glob("class/infiniband/*"))[:MOST_LINKS]:
        state = text_of(device / "ports/1/state", 64).partition(": ")[2].lower()
        rate = text_of(device / "ports/1/rate", 64).partition(" ")[0]
        found.append({"name": short(device.name, 32), "state": short(state, 16), "gbits": _number(rate)})
    return found


def _number(text: str) -> int | None:
    with contextlib.suppress(ValueError, OverflowError):
        return int(float(text))
    return None


def sampled(path: Path) -> gpu_sample.Sample:
    """The GPU sampler's last figures."""
    return gpu_sample.read(str(path), STALE)


def by_process(sample: gpu_sample.Sample) -> dict[int, int] | None:
    """PID → bytes on any GPU; None where nobody knows."""
    if sample.problem:
        return None
    return {pid: sample.unified.get(pid, 0) + sample.own.get(pid, 0) for pid in {*sample.unified, *sample.own}}


def warnings(path: Path) -> Sequence[str]:
    """What the observer warns of."""
    return [short(line, 400) for line in told.read(str(path)).lines[:8]]
