"""The settings of the measure headless."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparkfleet.settings.base import Measure


class HeadlessSettings(Measure):
    """No desktop: its memory, and its share of the GPU, for jobs."""

    # Not `present`: who sits in front of the host wants its desktop.
    state: Literal["present", "unmanaged", "absent"] = Field(
        default="absent",
        description="`present` ends the desktop and boots without one, `unmanaged` leaves whatever is on the host "
        "alone, `absent` (the default of this measure) brings back the desktop that sparkfleet turned off.",
    )
