"""What root sees of the watchdogs: units, process, the daemon's own words, GPU figures, the hardware's timer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparkfleet.audit.probe.as_root_ssh import memory_min
from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

WATCHDOG, SAMPLER, SLICE = "sparkfleet-watchdog.service", "sparkfleet-gpu-sampler.service", "sparkfleet.slice"
STATE, SAMPLE = "/run/sparkfleet/watchdog/state.json", "/run/sparkfleet/gpu/sample.json"
OBSERVED = "/run/sparkfleet/observer/state.json"
CONFIG = "/etc/sparkfleet/watchdog.toml"
TIMER = "sparkfleet-hardware-watchdog.service"
PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,WatchdogUSec,MainPID,ControlGroup,NeedDaemonReload,DropInPaths"
KEPT = ("pid", "dry_run", "policy", "protect", "prefer", "refused", "gpu_note")
"""What is kept of the daemon's own words; the rest changes from look to look."""
MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")


def daemon(parameters: Parameters) -> Mapping[str, Seen]:
    """The units as PID 1 holds them; from there the main process, and memory.min of each cgroup."""
    names = (WATCHDOG, SAMPLER, SLICE)
    shown = run(("systemctl", "show", "-p", PROPERTIES, "--", *names), shown=f"systemctl show {' '.join(names)}")
    if shown.rc:
        return {"watchdog_units": shown, "watchdog_process": shown, "watchdog_memory_min": shown}
    first = shown.output.strip().split("\n\n")[0]
    service = dict(line.split("=", 1) for line in first.splitlines() if "=" in line)
    return {
        "watchdog_units": shown,
        "watchdog_process": process(service.get("MainPID", "")),
        "watchdog_memory_min": memory_min({WATCHDOG: service}),
    }


def process(pid: str) -> Seen:
    """`PID N`, `oom_score_adj N`, and VmRSS, VmLck and VmSwap in kB, of the daemon's main process."""
    command = (
        f"cd /proc/$(systemctl show -P MainPID {WATCHDOG}) && cat oom_score_adj && grep -E 'Vm(RSS|Lck|Swap)' status"
    )
    if pid in ("", "0"):
        return Seen(command, "no process\n")
    score, status = read(f"/proc/{pid}/oom_score_adj"), read(f"/proc/{pid}/status")
    found = re.findall(r"^(VmRSS|VmLck|VmSwap):\s+(\d+) kB$", status.output, re.MULTILINE)
    lines = [f"PID {pid}", f"oom_score_adj {score.output.strip()}", *(f"{name} {size}" for name, size in found)]
    return Seen(command, "\n".join(lines) + "\n", score.rc or status.rc, score.error or status.error)


def aged(path: str, kept: tuple[str, ...] = ()) -> Seen:
    """A file that a service of ours keeps writing, as JSON, with its `age` in seconds by CLOCK_BOOTTIME."""
    if not Path(path).exists():
        return Seen(f"cat {path}", "no file\n")
    seen = read(path)
    try:
        value: dict[str, Any] = json.loads(seen.output)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - float(value["boottime"])
        chosen = {name: value[name] for name in kept} if kept else {k: v for k, v in value.items() if k != "boottime"}
    except (ValueError, KeyError, TypeError) as error:
        return seen._replace(output="", rc=seen.rc or 1, error=seen.error or f"{path} is none of ours: {error}")
    return seen._replace(output=json.dumps({"age": round(age, 1), **chosen}, sort_keys=True) + "\n")


def words(parameters: Parameters) -> Mapping[str, Seen]:
    """What the daemon, the sampler and the observer last said."""
    return {
        "watchdog_state": aged(STATE, KEPT),
        "gpu_sample": aged(SAMPLE),
        "observer_state": aged(OBSERVED, ("alarms", "problems")),
    }


def check(parameters: Parameters) -> Mapping[str, Seen]:
    """Whether the installed program takes the configuration that it reads at its next start."""
    answer = run(("/usr/local/bin/spark-watchdog", "check", CONFIG), shown=f"spark-watchdog check {CONFIG}")
    return {"watchdog_check": answer if answer.rc else answer._replace(output="accepted\n", error="")}


def hardware(parameters: Parameters) -> Mapping[str, Seen]:
    """What PID 1 and the kernel say of the hardware's timer, and what PID 1 will read at the next boot."""
    answer = run(("busctl", "get-property", *MANAGER, "RuntimeWatchdogUSec"))
    states = [
        f"{path.parent.name} {read(str(path)).output.strip()}"
        for path in sorted(Path("/sys/class/watchdog").glob("watchdog*/state"))
    ]
    panic = read("/proc/sys/kernel/panic").output.strip()
    lines = [f"runtime {answer.output.removeprefix('t ').strip()}", f"panic {panic}", f"{len(states)} timers", *states]
    command = "busctl get-property ... RuntimeWatchdogUSec; cat /proc/sys/kernel/panic /sys/class/watchdog/*/state"
    boots = [
        f"{path.parent.name} {read(str(path)).output.strip()}"
        for path in sorted(Path("/sys/class/watchdog").glob("watchdog*/bootstatus"))
    ]
    configured = run(("systemd-analyze", "cat-config", "systemd/system.conf"), limit=1024 * 1024)
    values = re.findall(r"^\s*RuntimeWatchdogSec\s*=\s*(.*?)\s*$", configured.output, re.MULTILINE)
    return {
        "hardware_timer": answer._replace(command=command, output="\n".join(lines) + "\n"),
        "hardware_timer_boot": Seen(
            "grep . /sys/class/watchdog/*/bootstatus", "\n".join([f"{len(boots)} timers", *boots]) + "\n"
        ),
        "hardware_timer_unit": run(("systemctl", "show", "-p", "Id,LoadState,UnitFileState", "--", TIMER)),
        "hardware_timer_configured": configured._replace(
            command="systemd-analyze cat-config systemd/system.conf | grep ^RuntimeWatchdogSec=",
            output="\n".join([f"{len(values)} lines", *values]) + "\n",
        ),
    }


LOOKS: dict[str, Looks] = {
    "watchdog_units": daemon,
    "watchdog_state": words,
    "watchdog_check": check,
    "hardware_timer": hardware,
}
