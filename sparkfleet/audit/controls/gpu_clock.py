"""The GPU's highest clock: limited now, and again after a boot and with each load of the driver."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.gpu_figures import gpus
from sparkfleet.audit.controls.kit import counted, judged, listed, malformed, unit_in
from sparkfleet.audit.model import Aspect, Control, Evidence, Judgement, Severity
from sparkfleet.settings import HostSettings

UNITS = "gpu_clock_units"
UNIT, DRIVER = "sparkfleet-gpu-clock.service", "sys-bus-pci-drivers-nvidia.device"


def in_force(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Set since the driver was loaded, and not above it now. The driver has no question for the limit itself."""
    most = settings.gpu_clock.max
    wanted = f"limited to {most} MHz since the driver was loaded, and no SM clock above it"
    unit, driver = unit_in(evidence, UNITS, UNIT), unit_in(evidence, UNITS, DRIVER)
    found = gpus(evidence)
    state = unit.get("ActiveState", "?")
    if not found:
        return judged(False, wanted, "no GPU")
    if state != "active" or unit.get("Result") != "success":
        return judged(False, wanted, f"{UNIT} is {state} ({unit.get('Result', '?')})")
    command = re.search(r"argv\[\]=\S+ set (\d+) ;", unit.get("ExecStart", ""))
    times = unit.get("ExecMainStartTimestampMonotonic", ""), driver.get("ActiveEnterTimestampMonotonic", "")
    if not command or not all(time.isdecimal() for time in times):
        raise malformed(evidence, UNITS)
    set_at, loaded_at = map(int, times)
    above = [f"GPU {gpu.number} runs at {gpu.clock} MHz" for gpu in found if gpu.clock is not None and gpu.clock > most]
    if int(command[1]) != most:
        return judged(False, wanted, f"limited to {command[1]} MHz")
    if set_at < loaded_at:
        return judged(False, wanted, "the driver was loaded anew since, which forgets the limit")
    return judged(not above, wanted, listed(above) or f"{command[1]} MHz set, {len(found)} GPUs not above it")


def comes_back(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"{UNIT} enabled, and started by udev with the driver"
    unit = unit_in(evidence, UNITS, UNIT)
    lines = counted(evidence, "gpu_clock_rules", "lines")
    with_driver = [line for line in lines if 'ACTION=="add"' in line and "/bus/pci/drivers/nvidia" in line]
    enabled = unit.get("UnitFileState") or "unknown to systemd"
    saw = f"{enabled}, {'a rule' if with_driver else 'no rule'} of udev starts it"
    return judged(enabled == "enabled" and bool(with_driver), wanted, saw)


CONTROLS = (
    Control(
        id="SPK-CLOCK-01",
        title="The GPU's clock is limited as the fleet file says",
        severity=Severity.MEDIUM,
        measure="gpu_clock",
        aspect=Aspect.RUNNING,
        why="Without the limit a Spark under load gets hot, and is reported to switch off without a line in a log; "
        "the driver forgets the limit whenever it is loaded.",
        source="NVIDIA/open-gpu-kernel-modules#1358; NVML API reference, nvmlDeviceSetGpuLockedClocks",
        manual_fix="systemctl restart sparkfleet-gpu-clock; by hand, until the next boot: nvidia-smi -lgc 0,2100",
        evidence=(UNITS, "gpu_figures"),
        judge=in_force,
    ),
    Control(
        id="SPK-CLOCK-02",
        title="The GPU's clock is limited after a boot and with each load of the driver",
        severity=Severity.LOW,
        measure="gpu_clock",
        aspect=Aspect.SURVIVES_REBOOT,
        why="What was limited by hand is unlimited after the next boot or update of the driver, and nobody notices.",
        source="NVML API reference, nvmlDeviceSetGpuLockedClocks; udev(7)",
        manual_fix="systemctl enable sparkfleet-gpu-clock, and deploy the measure gpu_clock for udev's rule",
        evidence=("gpu_clock_rules", UNITS),
        judge=comes_back,
    ),
)
