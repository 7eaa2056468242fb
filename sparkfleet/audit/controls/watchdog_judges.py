"""How the controls of the watchdogs are judged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sparkfleet.audit.controls.host_judges import NO_GPU, has_gpu
from sparkfleet.audit.controls.kit import (
    MIB,
    counted,
    in_bytes,
    judged,
    listed,
    malformed,
    not_applicable,
    shortened,
    unit_in,
)
from sparkfleet.audit.model import Evidence, Judgement, NoEvidence
from sparkfleet.settings import HostSettings, Size

SERVICE, SLICE = "sparkfleet-watchdog.service", "sparkfleet.slice"
LOWEST = -1000
"""oom_score_adj of what the kernel never kills for memory (proc_pid_oom_score_adj(5))."""
TIMER = "sparkfleet-hardware-watchdog.service"
RESET = 0x20
"""WDIOF_CARDRESET: the timer has reset the host (linux/watchdog.h)."""
FRESH = 45.0
"""Seconds: three of its words, one comes every 15 s."""
LEAST_MEMORY = 24 * MIB
"""What its locked pages need, whatever a unit file says."""


def unit(evidence: Evidence, name: str = SERVICE) -> Mapping[str, str]:
    return unit_in(evidence, "watchdog_units", name)


def said(evidence: Evidence) -> tuple[Mapping[str, Any] | None, str]:
    """What the running daemon last said of itself; None, and why, where that is nothing, or old, or another one's.

    Raises:
        NoEvidence: it is something else.
    """
    text = evidence.text("watchdog_state")
    if text.strip() == "no file":
        return None, "it has said nothing since the host was started"
    state = parsed(evidence, "watchdog_state")
    age, pid, service = state.get("age"), state.get("pid"), unit(evidence)
    if not isinstance(age, int | float) or not isinstance(pid, int) or not isinstance(state.get("policy"), dict):
        raise malformed(evidence, "watchdog_state")
    if not -1 <= age <= FRESH:
        return None, f"its last word is {age:.0f} s old"
    if service.get("MainPID") != str(pid):
        return None, f"it does not run: its last word is of process {pid}"
    return state, ""


def parsed(evidence: Evidence, name: str) -> dict[str, Any]:
    """An observation that is a JSON object. Raises NoEvidence where it is something else."""
    try:
        value = json.loads(evidence.text(name))
    except ValueError:
        raise malformed(evidence, name) from None
    if not isinstance(value, dict):
        raise malformed(evidence, name)
    return value


def process(evidence: Evidence) -> Mapping[str, int] | None:
    """Numbers of the daemon's main process by name, None where there is none. Raises NoEvidence on other text."""
    text = evidence.text("watchdog_process").strip()
    if text == "no process":
        return None
    found = dict(re.findall(r"^(PID|oom_score_adj|VmRSS|VmLck|VmSwap) (-?\d+)$", text, re.MULTILINE))
    if not {"PID", "oom_score_adj", "VmRSS", "VmLck"} <= set(found):
        raise malformed(evidence, "watchdog_process")
    return {name: int(value) for name, value in found.items()}


def answers(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Active is not enough: a stopped process is that too."""
    wanted = f"{SERVICE} active, watched by systemd (WatchdogSec=), and heard of within {FRESH:.0f} s"
    service = unit(evidence)
    state, why = said(evidence)
    if service.get("ActiveState") != "active":
        return judged(False, wanted, f"{service.get('LoadState', '?')}, {service.get('ActiveState', '?')}")
    if service.get("WatchdogUSec", "") in ("", "0", "infinity"):
        return judged(False, wanted, "systemd does not watch it: WatchdogSec= is not set")
    if state is None:
        return judged(False, wanted, why)
    return judged(True, wanted, f"active, heard of {state['age']:.0f} s ago, WatchdogSec {service['WatchdogUSec']}")


def expected(settings: HostSettings, evidence: Evidence) -> dict[str, Any]:
    """What the fleet file says, by the daemon's own names; sizes in bytes on this host, times in seconds."""
    own = settings.watchdog
    term, kill = (in_bytes(floor, evidence) for floor in own.floors)
    times = {name: float(getattr(own, name)) for name in ("grace", "recovery_wait", "far", "near", "brake_at_most")}
    sizes = {name: int(getattr(own, name)) for name in ("fastest_fill", "smallest_victim", "system_unit_above")}
    return {
        "term_below": term,
        "kill_below": kill,
        **sizes,
        **times,
        "brake": own.brake,
        "drop_page_cache": own.drop_page_cache,
        "protect": list(own.protect),
        "prefer": list(own.prefer),
    }


def in_force(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted_values = expected(settings, evidence)
    floors = (value(wanted_values[name]) for name in ("term_below", "kill_below"))
    wanted = "term_below {}, kill_below {}, the rest as set".format(*floors)
    state, why = said(evidence)
    if state is None:
        return judged(False, wanted, why)
    has = {**state["policy"], "protect": state.get("protect"), "prefer": state.get("prefer")}
    wrong = [f"{name} is {value(has.get(name))}" for name, want in wanted_values.items() if has.get(name) != want]
    seen = ", ".join(f"{name} {value(has.get(name))}" for name in ("term_below", "kill_below"))
    return judged(not wrong, wanted, listed(wrong) or seen)


def value(seen: Any) -> str:
    """A number of bytes as the fleet file has it; anything else as it is."""
    return str(Size(seen)) if type(seen) is int and 0 <= seen < 2**63 else shortened(json.dumps(seen), 40)


def signals(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "it decides and tells only (dry_run)" if settings.watchdog.dry_run else "it signals what it chooses"
    state, why = said(evidence)
    if state is None:
        return judged(False, wanted, why)
    dry = state.get("dry_run")
    if not isinstance(dry, bool):
        raise malformed(evidence, "watchdog_state")
    return judged(dry == settings.watchdog.dry_run, wanted, "it signals" if not dry else "a dry run: it signals nobody")


def never_killed(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"oom_score_adj {LOWEST}"
    seen = process(evidence)
    if seen is None:
        return judged(False, wanted, "it does not run")
    return judged(seen["oom_score_adj"] == LOWEST, wanted, f"oom_score_adj {seen['oom_score_adj']}")


def locked(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "all of its memory locked (VmLck at least VmRSS), none of it in swap"
    seen = process(evidence)
    if seen is None:
        return judged(False, wanted, "it does not run")
    swapped = seen.get("VmSwap", 0)
    # Some of a process's pages cannot be locked, and are not counted: the kernel's own (vdso).
    holds = 0 < seen["VmRSS"] <= seen["VmLck"] + 1024 and not swapped
    return judged(holds, wanted, f"VmLck {seen['VmLck']} kB, VmRSS {seen['VmRSS']} kB, VmSwap {swapped} kB")


def kept_memory(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"memory.min of {LEAST_MEMORY // MIB} MiB or more in every cgroup down to {SERVICE}"
    lines = [line.split(" ") for line in counted(evidence, "watchdog_memory_min", "units")]
    if not lines or any(len(words) < 3 or words[0] != SERVICE for words in lines):
        raise malformed(evidence, "watchdog_memory_min")
    if lines[0][1] == "-":
        return judged(False, wanted, "it does not run")
    short: list[str] = []
    saw: list[str] = []
    for _, cgroup, minimum in lines:
        if minimum not in ("max", "none") and not minimum.isdecimal():
            raise malformed(evidence, "watchdog_memory_min")
        enough = minimum == "max" or (minimum.isdecimal() and int(minimum) >= LEAST_MEMORY)
        (saw if enough else short).append(f"{cgroup} grants {minimum}")
    return judged(not short, wanted, listed(short) or listed(saw))


def comes_back(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "enabled; no change that systemd has not read, nothing set until the next boot only"
    service = unit(evidence)
    state, reload = service.get("UnitFileState", ""), service.get("NeedDaemonReload", "")
    if reload not in ("yes", "no"):
        raise NoEvidence(f"systemctl show prints no NeedDaemonReload for {SERVICE}")
    wrong = [] if state == "enabled" else [f"{SERVICE} is {state or service.get('LoadState', 'unknown')}"]
    for name in (SERVICE, SLICE):
        found = unit(evidence, name)
        if found.get("NeedDaemonReload") == "yes":
            wrong.append(f"{name} has changes that systemd has not read")
        wrong += [f"{name}: {path}" for path in found.get("DropInPaths", "").split() if path.startswith("/run/")]
    return judged(not wrong, wanted, listed(wrong) or "enabled")


def configuration_sound(evidence: Evidence, settings: HostSettings) -> Judgement:
    """The program that starts at the next boot says it; its refusal is what is looked for, not a lack of evidence."""
    wanted = "the watchdog accepts its configuration, and runs with it"
    seen = evidence.observations.get("watchdog_check")
    if seen and seen.rc in (2, 127) and seen.error:
        return judged(False, wanted, seen.error.splitlines()[0])
    if evidence.text("watchdog_check").strip() != "accepted":
        raise malformed(evidence, "watchdog_check")
    state, _ = said(evidence)
    if state is not None and state.get("refused"):
        return judged(False, wanted, f"it runs with an older one: {shortened(str(state['refused']))}")
    return judged(True, wanted, "it does")


def gpu_figures(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Without them jobs are ranked by their own memory only, which on a Spark is the smaller part."""
    most = 5 * float(settings.watchdog.gpu_every)
    wanted = f"figures of GPU memory by process, at most {most:g} s old"
    gpu = has_gpu(evidence)
    text = evidence.text("gpu_sample").strip()
    sample = {} if text == "no file" else parsed(evidence, "gpu_sample")
    if settings.watchdog.gpu_memory == "never":
        return not_applicable(wanted, "watchdog.gpu_memory is never in the fleet file")
    if not gpu:
        why = sample.get("error") if sample else "there is no sampler's file"
        return not_applicable(wanted, f"{NO_GPU}; {shortened(str(why or 'the sampler has figures'), 80)}")
    if not sample:
        return judged(False, wanted, "the sampler has written nothing: systemctl status sparkfleet-gpu-sampler")
    age, error, devices = sample.get("age"), sample.get("error"), sample.get("devices")
    if not isinstance(age, int | float) or not isinstance(devices, list):
        raise malformed(evidence, "gpu_sample")
    if error:
        return judged(False, wanted, shortened(str(error)))
    return judged(-1 <= age <= most, wanted, f"{len(devices)} GPUs, {age:g} s ago")


def warned_of(evidence: Evidence, settings: HostSettings) -> Judgement:
    """What the observer warns of needs a person: nothing on the host acts on it."""
    wanted = f"the observer is heard of within {FRESH:.0f} s, and warns of nothing"
    if evidence.text("observer_state").strip() == "no file":
        return judged(False, wanted, "it has written nothing: systemctl status sparkfleet-observer")
    state = parsed(evidence, "observer_state")
    age, alarms = state.get("age"), state.get("alarms")
    if not isinstance(age, int | float) or not isinstance(alarms, list):
        raise malformed(evidence, "observer_state")
    if not all(isinstance(alarm, dict) and isinstance(alarm.get("text"), str) for alarm in alarms):
        raise malformed(evidence, "observer_state")
    if not -1 <= age <= FRESH:
        return judged(False, wanted, f"its last word is {age:.0f} s old: systemctl status sparkfleet-observer")
    lines = [shortened(f"{alarm['text']}: {alarm.get('remedy', '')}", 240) for alarm in alarms]
    return judged(not lines, wanted, listed(lines, 2) or f"heard of {age:.0f} s ago")


def timer_armed(evidence: Evidence, settings: HostSettings) -> Judgement:
    own = settings.hardware_watchdog
    wanted = f"RuntimeWatchdogUSec {int(own.timeout)} s, a timer that counts, kernel.panic {int(own.panic)}"
    match = re.match(
        r"runtime (\d+)\npanic (-?\d+)\n(\d+) timers\n((?:watchdog\d+ \w+\n)*)\Z", evidence.text("hardware_timer")
    )
    if not match:
        raise malformed(evidence, "hardware_timer")
    if not own.armed:
        return not_applicable(wanted, "hardware_watchdog.armed is false in the fleet file")
    runtime, panic, counts = int(match[1]), int(match[2]), " active\n" in match[4]
    holds = runtime == int(own.timeout) * 1_000_000 and counts and panic == int(own.panic)
    armed = f"{runtime // 1_000_000} s" if runtime < 2**63 else "off"
    saw = f"RuntimeWatchdogUSec {armed}, {'a timer counts' if counts else 'no timer counts'}, kernel.panic {panic}"
    return judged(holds, wanted, saw)


def timer_at_boot(evidence: Evidence, settings: HostSettings) -> Judgement:
    own = settings.hardware_watchdog
    wanted = f"RuntimeWatchdogSec={int(own.timeout)}s, the last of its kind that systemd reads; its driver is loaded"
    values = counted(evidence, "hardware_timer_configured", "lines")
    if not own.armed:
        return not_applicable(wanted, "hardware_watchdog.armed is false in the fleet file")
    last = values[-1] if values else "unset"
    loaded = unit_in(evidence, "hardware_timer_unit", TIMER).get("UnitFileState") or "unknown to systemd"
    holds = last == f"{int(own.timeout)}s" and loaded == "enabled"
    return judged(holds, wanted, f"RuntimeWatchdogSec={shortened(last, 40)}, {TIMER} {loaded}")


def not_reset(evidence: Evidence, settings: HostSettings) -> Judgement:
    """What the timers say of the reset before this boot. Without one, or without its word, nothing is known."""
    wanted = "the hardware's timer did not reset this host before this boot"
    lines = counted(evidence, "hardware_timer_boot", "timers")
    found = [re.fullmatch(r"(watchdog\d+) (\d{1,10})", line) for line in lines]
    if not all(found):
        raise malformed(evidence, "hardware_timer_boot")
    if not found:
        return not_applicable(wanted, "no timer has a driver on this host")
    resets = [match[1] for match in found if match and int(match[2]) & RESET]
    return judged(not resets, wanted, f"{', '.join(resets)} did" if resets else "no timer did")
