"""Every control, and which of them are meant by a choice. A new measure is a module here and a line in `MODULES`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from sparkfleet.audit.controls import (
    cluster_link,
    cuda_env,
    fleet,
    gpu_clock,
    headless,
    heat,
    host,
    ssh,
    stack,
    swap,
    tools,
    training_slice,
    uv,
    versions,
    vllm_container,
    vllm_source,
    watchdog,
)
from sparkfleet.audit.model import Control
from sparkfleet.exit_codes import CommandFailed, ExitCode

MODULES = (
    swap,
    ssh,
    cuda_env,
    uv,
    stack,
    tools,
    training_slice,
    vllm_source,
    vllm_container,
    watchdog,
    gpu_clock,
    headless,
    cluster_link,
    host,
    versions,
    heat,
    fleet,
)
CONTROLS: list[Control] = [control for module in MODULES for control in module.CONTROLS]
"""Ours, and behind them those of the site's project that a command is about (`sparkfleet.site`)."""


def chosen(ids: Sequence[str] = (), measures: Sequence[str] = ()) -> tuple[Control, ...]:
    """The controls with one of these ids (or globs such as `SPK-SSH-*`) and measures (`host`: none); none given: all.

    Raises:
        CommandFailed: one of them is unknown, or nothing is left (4).
    """
    known = {control.measure or "host" for control in CONTROLS}
    for measure in measures:
        if measure not in known:
            raise bad(f"there are no controls for the measure {measure!r}: expected {', '.join(sorted(known))}")
    for pattern in ids:
        if not any(fnmatchcase(control.id, pattern.upper()) for control in CONTROLS):
            raise bad(f"there is no control {pattern!r}: their ids are such as {CONTROLS[0].id}")
    found = tuple(
        control
        for control in CONTROLS
        if (not ids or any(fnmatchcase(control.id, pattern.upper()) for pattern in ids))
        and (not measures or (control.measure or "host") in measures)
    )
    if not found:
        raise bad("--control and --measure together leave no control")
    return found


def bad(message: str) -> CommandFailed:
    return CommandFailed(message, ExitCode.BAD_CONFIGURATION)
