"""Which batch fits beside what the host holds already, and how a total batch is made of it."""

from __future__ import annotations

from typing import NamedTuple

from sparkhost.tools.estimate import serve
from sparkhost.tools.estimate.sizes import Shape
from sparkhost.tools.estimate.terms import Estimate, Run, estimate

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Host(NamedTuple):
    """The memory that a run is put into. Bytes."""

    total: int
    rest: int
    """What everything else uses."""
    headroom: int
    """What must stay available."""

    @property
    def room(self) -> int:
        return max(self.total - self.rest - self.headroom, 0)


class Row(NamedTuple):
    """One batch. `fits`: also with the higher figure; `may`: with the lower one only. `copied`: whether its load fits
    with a second copy of the weights as well."""

    batch: int
    estimate: Estimate
    fits: bool
    may: bool
    copied: bool


class Choice(NamedTuple):
    """How to run: batch times accumulation is the total batch."""

    batch: int
    accumulation: int


def row(shape: Shape, run: Run, host: Host) -> Row:
    found = (serve.estimate if run.method == "serve" else estimate)(shape, run, host.total)
    loads = found.load.low <= host.room
    if run.method == "grpo" and run.vllm and shape.whole and shape.stored is not None:
        loads = loads and serve.beside(shape, run, host.total)[1] >= run.length
    fits, may = loads and found.high <= host.room, loads and found.low <= host.room
    return Row(run.batch, found, fits, may, found.load.high <= host.room)


def table(shape: Shape, run: Run, host: Host) -> list[Row]:
    """Rows of doubling batches, up to the first that does not fit even with the lower figure."""
    rows = []
    for batch in BATCHES:
        rows.append(row(shape, run._replace(batch=batch), host))
        if not rows[-1].may:
            break
    return rows


def choose(shape: Shape, run: Run, host: Host, total_batch: int) -> Choice | None:
    """The largest divisor of the total batch that fits with the higher figure; None where not even one sequence does.

    Gradients stay between accumulated steps, which is counted.
    """
    for batch in range(total_batch, 0, -1):
        if total_batch % batch == 0:
            steps = total_batch // batch
            if row(shape, run._replace(batch=batch, accumulation=steps), host).fits:
                return Choice(batch, steps)
    return None
