"""What the driver says of the GPU's clock and heat, and what PID 1 and udev have to keep the clock limited."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe.as_root_host import nvidia_gpus
from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

UNIT, DRIVER = "sparkfleet-gpu-clock.service", "sys-bus-pci-drivers-nvidia.device"
PROPERTIES = (
    "Id,LoadState,ActiveState,Result,UnitFileState,ExecStart,ExecMainStartTimestampMonotonic,"
    "ActiveEnterTimestampMonotonic"
)
FIGURES = "index,temperature.gpu,clocks.sm,clocks.max.sm,utilization.gpu,clocks_event_reasons.active"
COUNTERS = "index,clocks_event_reasons_counters.sw_thermal_slowdown,clocks_event_reasons_counters.hw_thermal_slowdown"
"""Known to drivers of 580 (580.159); older ones refuse the question."""
RULES = ("/usr/lib/udev/rules.d", "/run/udev/rules.d", "/etc/udev/rules.d")
"""Where udev looks; a file of the same name in a later one replaces it (udev(7))."""


def figures(parameters: Parameters) -> Mapping[str, Seen]:
    """Each GPU's figures now, a line each: its number, degrees, MHz, MHz, percent, and why its clock is not higher."""
    command = ("nvidia-smi", f"--query-gpu={FIGURES}", "--format=csv,noheader,nounits")
    # It can block for minutes while the driver is in trouble (reported).
    return {"gpu_figures": run(command, seconds=10) if nvidia_gpus() else Seen(" ".join(command), "no GPU\n")}


def slowed(parameters: Parameters) -> Mapping[str, Seen]:
    """Each GPU's counters since the driver was loaded: its number, and microseconds slowed for heat, two kinds."""
    command = ("nvidia-smi", f"--query-gpu={COUNTERS}", "--format=csv,noheader,nounits")
    if not nvidia_gpus():
        return {"gpu_slowed": Seen(" ".join(command), "no GPU\n")}
    seen = run(command, seconds=10)
    if seen.rc and "not a valid field" in seen.output + seen.error:
        seen = seen._replace(output="unknown\n", rc=0, error="")
    return {"gpu_slowed": seen}


def clock_units(parameters: Parameters) -> Mapping[str, Seen]:
    """The unit that limits the clock, and the driver as PID 1 knows it; nothing where nobody asks for a limit."""
    if not parameters["gpu_clock"]:
        return {}
    shown = run(("systemctl", "show", "-p", PROPERTIES, "--", UNIT, DRIVER))
    return {"gpu_clock_units": shown}


def clock_rules(parameters: Parameters) -> Mapping[str, Seen]:
    """The lines of udev's rules in force that start the unit with the driver."""
    if not parameters["gpu_clock"]:
        return {}
    files = {path.name: path for folder in RULES for path in sorted(Path(folder).glob("*.rules"))}
    lines = [
        line
        for path in files.values()
        for line in read(str(path), limit=1024 * 1024).output.splitlines()
        if UNIT in line and re.match(r"\s*ACTION", line)
    ]
    command = f"grep -h {UNIT} {' '.join(f'{folder}/*.rules' for folder in RULES)}"
    return {"gpu_clock_rules": Seen(command, "\n".join([f"{len(lines)} lines", *lines]) + "\n")}


LOOKS: dict[str, Looks] = {
    "gpu_figures": figures,
    "gpu_slowed": slowed,
    "gpu_clock_units": clock_units,
    "gpu_clock_rules": clock_rules,
}
