"""How `sparkfleet rollout` goes about this fleet; its options on the command line win."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparkfleet.settings.base import Strict
from sparkfleet.settings.units import Seconds
from sparkfleet.settings.values import Batch


class RolloutSettings(Strict):
    """How `sparkfleet rollout` goes about this fleet. An option of the command of the same name wins."""

    canary: list[str] = Field(
        default=[], description="Hosts that go first, together; without any the first one of the run."
    )
    batch: Batch = Field(
        default="25%", description="Hosts at a time after the canary: a number, or a share of all such as `25%`."
    )
    busy: Literal["skip", "wait", "force"] = Field(
        default="skip",
        description="Hosts on which training users' jobs run: `skip` leaves them for the next time, `wait` waits for "
        "their end, `force` does not spare them.",
    )
    wait_up_to: Seconds = Field(
        default=Seconds(8 * 3600),
        description="With `busy: wait`: how long a batch waits. What is in use then is skipped.",
    )
    return_within: Seconds = Field(
        default=Seconds(900), description="With `--reboot`: how long a host has for its reboot."
    )
