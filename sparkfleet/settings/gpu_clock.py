"""The settings of the measure gpu_clock."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparkfleet.settings.base import Measure


class GpuClockSettings(Measure):
    """The highest clock of the GPU: less heat, and fewer hosts that switch themselves off."""

    # Not `present`: a lower clock costs speed, which is the owner's to give.
    state: Literal["present", "unmanaged", "absent"] = Field(
        default="absent",
        description="`present` limits the clock, `unmanaged` leaves whatever is on the host alone, "
        "`absent` (the default of this measure) takes off the limit that sparkfleet set.",
    )
    max: int = Field(
        default=2100,
        ge=210,
        le=4000,
        description="The highest clock of the streaming multiprocessors (SM), in MHz. 2100 brought several Sparks "
        "from 90 to 65-80 degrees (reported); the GPU still clocks lower when it is idle.",
    )
