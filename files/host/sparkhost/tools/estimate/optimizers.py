"""What an optimizer keeps for each trained parameter, and what its step takes for a moment."""

from __future__ import annotations

from typing import Literal, NamedTuple

Optimizer = Literal["adamw-fused", "adamw", "adamw-8bit", "paged-adamw-8bit", "adafactor", "muon", "sgd"]


class Kept(NamedTuple):
    """Of one optimizer."""

    copies: int
    """State, in copies of what is trained."""
    more: float
    """State, in bytes a parameter whatever it is trained in."""
    temporaries: float
    """During its step, in copies of what is trained."""
    source: str
    during: str


EIGHT = 2 * (1 + 4 / 256)
"""Two moments of one byte, and an fp32 scale for 256 values (bitsandbytes' documentation)."""
NONE = "none: one parameter at a time"
COPY = "one copy of what is trained (measured)"

OPTIMIZERS: dict[Optimizer, Kept] = {
    "adamw-fused": Kept(2, 0, 0, "two copies of what is trained (measured)", "none: fused (measured)"),
    "adamw": Kept(2, 0, 1, "two copies of what is trained (measured)", COPY),
    "adamw-8bit": Kept(0, EIGHT, 0, "two moments of 8 bits (by its documentation)", NONE),
    "paged-adamw-8bit": Kept(
        0, EIGHT, 0, "two moments of 8 bits; paging them out frees nothing where GPU and host share memory", NONE
    ),
    "adafactor": Kept(0, 0, 1, "rows and columns only (measured)", "one copy of what is trained (assumed)"),
    "muon": Kept(1, 0, 1, "one copy of what is trained (by its documentation)", "one copy (assumed)"),
    "sgd": Kept(0, 0, 0, "nothing, without momentum (measured)", NONE),
}
