"""The GPU's heat, and a clock that stays low: warnings, whatever measures are deployed."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.gpu_figures import gpus
from sparkfleet.audit.controls.host_judges import NO_GPU
from sparkfleet.audit.controls.kit import judged, listed, malformed, not_applicable
from sparkfleet.audit.controls.watchdog_judges import parsed
from sparkfleet.audit.model import Aspect, Control, Evidence, Judgement, Severity
from sparkfleet.settings import HostSettings

HOT = 85
"""Degrees Celsius; Sparks are reported to switch off at 91 to 92."""
SLOWED = 100_000
"""Microseconds that are no moment any more, as `spark-doctor` has it."""
BUSY, LOW = 50, 0.5
"""Percent from which on a low clock is no idling; share of the highest clock under which it is low."""
THERMAL = {0x20: "software", 0x40: "hardware"}
"""nvmlClocksEventReasons (NVML API reference)."""


def not_slowed(evidence: Evidence, settings: HostSettings) -> Judgement:
    """The driver's own counters, since it was loaded, and its reasons now."""
    wanted = "not slowed down for heat since the driver was loaded"
    text = evidence.text("gpu_slowed").strip()
    if text == "no GPU":
        return not_applicable(wanted, NO_GPU)
    if text == "unknown":
        return not_applicable(wanted, "this driver does not count it")
    wrong = []
    for line in text.splitlines():
        match = re.fullmatch(r"(\d{1,3}), (\d{1,18}|\[N/A\]|N/A), (\d{1,18}|\[N/A\]|N/A)", line.strip())
        if not match:
            raise malformed(evidence, "gpu_slowed")
        took = sum(int(word) for word in match.groups()[1:] if word.isdecimal())
        if took >= SLOWED:
            wrong.append(f"GPU {match[1]}: {took / 1e6:.1f} s")
    for gpu in gpus(evidence):
        now = [name for bit, name in THERMAL.items() if gpu.reasons is not None and gpu.reasons & bit]
        if now:
            wrong.append(f"GPU {gpu.number}: now, by {' and '.join(now)}")
    return judged(not wrong, wanted, listed(wrong) or "not slowed down")


def full_clock(evidence: Evidence, settings: HostSettings) -> Judgement:
    """What is busy has more than half of its highest clock, or of the limit that the fleet file sets."""
    wanted = "no GPU that is busy at less than half of its highest clock"
    found = gpus(evidence)
    if not found:
        return not_applicable(wanted, NO_GPU)
    own = settings.gpu_clock
    wrong = []
    for gpu in found:
        if gpu.percent is None or gpu.clock is None or gpu.highest is None:
            continue
        most = min(gpu.highest, own.max) if own.state == "present" else gpu.highest
        if gpu.percent >= BUSY and gpu.clock < LOW * most:
            wrong.append(f"GPU {gpu.number}: {gpu.clock} of {most} MHz at {gpu.percent} %")
    seen = ", ".join(f"{gpu.clock if gpu.clock is not None else '?'} MHz at {gpu.percent} %" for gpu in found[:4])
    return judged(not wrong, wanted, listed(wrong) or seen)


def not_hot(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Now, by the driver; the highest since the boot, by the GPU sampler, where it runs."""
    wanted = f"under {HOT} degrees, now and since the boot"
    found = gpus(evidence)
    if not found:
        return not_applicable(wanted, NO_GPU)
    highest = hottest(evidence)
    wrong: list[str] = []
    seen: list[str] = []
    for place, gpu in enumerate(found):
        most = highest[place] if place < len(highest) else None
        if gpu.degrees is None and most is None:
            continue
        now = "?" if gpu.degrees is None else str(gpu.degrees)
        says = f"GPU {gpu.number}: {now} now" + (f", {most} at most" if most is not None else "")
        (wrong if max(gpu.degrees or 0, most or 0) >= HOT else seen).append(says)
    if not wrong and not seen:
        return not_applicable(wanted, "no GPU tells its temperature")
    return judged(not wrong, wanted, listed(wrong or seen))


def hottest(evidence: Evidence) -> list[int | None]:
    """The highest temperatures that the sampler has seen; nothing where there is no sampler. Raises NoEvidence."""
    if evidence.text("gpu_sample").strip() == "no file":
        return []
    devices = parsed(evidence, "gpu_sample").get("devices")
    if not isinstance(devices, list) or not all(isinstance(device, dict) for device in devices):
        raise malformed(evidence, "gpu_sample")
    found = [device.get("hottest") for device in devices]
    return [value if type(value) is int else None for value in found]


CONTROLS = (
    Control(
        id="SPK-HEAT-01",
        title="The GPU was not slowed down for heat",
        severity=Severity.MEDIUM,
        measure="",
        aspect=Aspect.RUNNING,
        why="A GPU that slows itself down is near the heat at which Sparks are reported to switch off without a log.",
        source="nvidia-smi, clocks_event_reasons_counters; NVIDIA/open-gpu-kernel-modules#1358",
        manual_fix="more air, or the measure gpu_clock; the counters begin anew when the driver is loaded",
        evidence=("gpu_slowed", "gpu_figures"),
        judge=not_slowed,
    ),
    Control(
        id="SPK-HEAT-02",
        title="The GPU's clock is not stuck low under load",
        severity=Severity.MEDIUM,
        measure="",
        aspect=Aspect.RUNNING,
        why="After some power events a Spark is reported to stay at about 800 MHz, at 96 % load, until its plug is "
        "pulled: jobs take several times as long, and nothing says so.",
        source="nvidia-smi, clocks.sm; docs/doctor.md, clock-low",
        manual_fix="end the jobs, shut down, pull the plug for a minute; spark-stack smoke --bench compares",
        evidence=("gpu_figures",),
        judge=full_clock,
    ),
    Control(
        id="SPK-HEAT-03",
        title="The GPU is not hot, and was not since the boot",
        severity=Severity.LOW,
        measure="",
        aspect=Aspect.RUNNING,
        why="Sparks are reported to switch off at 91 to 92 degrees; what was at 85 once will be there again.",
        source="NVIDIA/open-gpu-kernel-modules#1358; nvidia-smi, temperature.gpu; NVML by the GPU sampler",
        manual_fix="more air, or the measure gpu_clock; the highest begins anew with the next boot",
        evidence=("gpu_figures", "gpu_sample"),
        judge=not_hot,
    ),
)
