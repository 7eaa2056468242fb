"""The GPU's heat and clock over time, which one look cannot say: from sample to sample, until the host is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparkhost.sampler.nvml import Device

THERMAL = 0x20 | 0x40
"""nvmlClocksEventReasonSwThermalSlowdown, …HwThermalSlowdown: the clock is held down for heat (NVML API reference)."""
BUSY = 50
"""Percent of the time with a kernel running from which on a low clock is no idling."""
LOW = 0.5
"""Share of the highest clock under which a busy GPU is slow, as `spark-doctor` has it."""
LONGEST = 60.0
"""Seconds between two samples that still count as one stretch."""


@dataclass
class Heat:
    """Of one GPU."""

    hottest: int | None = None
    """Highest temperature seen, degrees Celsius."""
    slowed: float = 0.0
    """Seconds in which its clock was held down for heat, in all."""
    low: float = 0.0
    """Seconds for which it has been busy at a low clock, up to now; 0 where it is not."""

    def saw(self, device: Device, seconds: float) -> None:
        """One more sample, so many seconds after the last."""
        passed = min(seconds, LONGEST)
        if device.temperature is not None:
            self.hottest = max(device.temperature, self.hottest if self.hottest is not None else device.temperature)
        if device.reasons is not None and device.reasons & THERMAL:
            self.slowed = round(self.slowed + passed, 1)
        self.low = round(self.low + passed, 1) if is_low(device) else 0.0


def is_low(device: Device) -> bool:
    """Whether it is busy at a low clock; false where the driver does not tell."""
    if device.clock is None or device.most is None or device.busy is None:
        return False
    return device.busy >= BUSY and device.clock < LOW * device.most


class Heats:
    """Of all GPUs, by their number."""

    def __init__(self, before: Any = None) -> None:
        """`before`: the devices of the last sample, whoever wrote it; what is no figure there is left out."""
        self.by_number: list[Heat] = []
        for device in before if isinstance(before, list) else []:
            found = device if isinstance(device, dict) else {}
            hottest, slowed = found.get("hottest"), found.get("slowed")
            self.by_number.append(
                Heat(
                    hottest if type(hottest) is int else None,
                    float(slowed) if isinstance(slowed, int | float) and not isinstance(slowed, bool) else 0.0,
                )
            )

    def saw(self, devices: Sequence[Device], seconds: float) -> list[dict[str, object]]:
        """The devices as they are written, each with its heat."""
        while len(self.by_number) < len(devices):
            self.by_number.append(Heat())
        written: list[dict[str, object]] = []
        for device, heat in zip(devices, self.by_number, strict=False):
            heat.saw(device, seconds)
            written.append({**asdict(device), **asdict(heat)})
        return written
