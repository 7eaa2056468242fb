"""Each measure as a pyinfra operation, for anybody's deploy. docs/one-measure.md, ADR 15.

    from sparkfleet.operations import ssh, swap

    swap(mode="off", margin="2GiB", _sudo=True)
    ssh(_sudo=True)

`all_measures()` is our own deploy: every measure with the host's settings, for the cost of one. `host_settings()` are
those settings.

A measure of `HostSettings` has the operation of its name: keywords are its keys in the fleet file,
with the same values, units, defaults and errors. `help(swap)` lists them. A refusal fails the
operation on that host alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparkfleet.own_tasks import measure_of, own_tasks
from sparkfleet.run_environment import ONLY
from sparkfleet.settings import MEASURES, HostSettings
from sparkfleet.site import use

with own_tasks():
    from sparkfleet.operations.measure import operation_of
    from tasks.lib import converge

if TYPE_CHECKING:
    from sparkfleet.operations.measure import MeasureOperation

    def __getattr__(name: str) -> MeasureOperation: ...


__all__ = list(MEASURES)

globals().update({name: operation_of(name) for name in MEASURES})


def all_measures() -> None:
    """Brings the current host to `host.data.settings` of the fleet file, else to the defaults, measure by measure.

    A converged host costs one SSH command. A measure that is refused does not stop the others; the host fails at the
    end. A wrong setting fails the host, one line each; nothing is raised. With `--only` of `sparkfleet`: those
    measures alone.
    """
    only = os.environ.get(ONLY, "").split()
    converge.deploy(*(measure_of(name) for name in MEASURES if not only or name in only))


def host_settings() -> HostSettings:
    """The current host's settings as the fleet file has them, else the defaults; those of the site's own measures too.

    Raises:
        FleetError: the project in the current folder has mistakes (`pyinfra @local`, which reads no fleet file).
    """
    found = converge.current_host().data.get("settings")
    if found is None:
        use(Path.cwd())
    return HostSettings.model_validate(found or {})
