"""What PyTorch's allocator reserves beyond what is in use. Bytes.

Weights and moments lie where they were put; what comes and goes leaves gaps. With the default allocator a gap
is of use only for a block that is not larger. So the optimizer's state, which is put into the gaps of the first
step's loss, costs the second step new blocks; and where lengths vary, each longer step needs new ones.
`expandable_segments:True` maps pages as they are needed, and leaves little.

The coefficients were fitted to 73 runs of constant and 11 of varied lengths without expandable segments, and 7 of
varied lengths with them, on an H100 and an H200, torch 2.11 (docs/estimate.md). Not on a GB10.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sparkhost.base.units import GIB

Lengths = Literal["constant", "varied"]

SEGMENTS = 0.16
"""With expandable segments: of what is transient. Beside it, once the gradients: no more than the loss's part,
since a step's two phases cannot reserve more than both of them."""
VARIED = 3.3
"""Without, lengths vary: of what the loss takes. The most that was measured (0.1 to 3.22), no fit: it depends
on the order of the lengths, and was still rising in one run."""
LOSS, STATE, MOST, LEAST = 0.15, 0.75, 0.8, int(0.7 * GIB)
"""Without, lengths are constant: of the loss, of the optimizer's state, at most of the loss, and always."""
KEPT = 0.1
"""Instead of these without checkpointing: many small blocks, which fill gaps."""


class Parts(NamedTuple):
    """What the allocator's share depends on. Bytes."""

    loss: int
    """Activations and logits."""
    transient: int
    """In use at the peak, without what is there all the time."""
    state: int
    """The optimizer's."""
    gradients: int
    checkpointing: bool


def slack(parts: Parts, lengths: Lengths, segments: bool) -> int:
    """What is reserved beyond what is in use, to plan with."""
    if segments:
        return int(SEGMENTS * parts.transient) + min(parts.gradients, parts.loss)
    if lengths == "varied":
        return int(VARIED * parts.loss) + LEAST
    if not parts.checkpointing:
        return int(KEPT * parts.loss) + LEAST
    return int(min(LOSS * parts.loss + STATE * parts.state, MOST * parts.loss)) + LEAST
