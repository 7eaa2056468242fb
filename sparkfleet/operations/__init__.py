"""Each measure as a pyinfra operation, for anybody's deploy. docs/one-measure.md, ADR 15.

    from sparkfleet.operations import ssh, swap

    swap(mode="off", margin="2GiB", _sudo=True)
    ssh(_sudo=True)

A measure of `HostSettings` has the operation of its name: keywords are its keys in the fleet file,
with the same values, units, defaults and errors. `help(swap)` lists them. A refusal fails the
operation on that host alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparkfleet.own_tasks import own_tasks
from sparkfleet.settings import HostSettings

with own_tasks():
    from sparkfleet.operations.measure import operation_of

if TYPE_CHECKING:
    from sparkfleet.operations.measure import MeasureOperation

    def __getattr__(name: str) -> MeasureOperation: ...


__all__ = list(HostSettings.model_fields)

globals().update({name: operation_of(name) for name in HostSettings.model_fields})
