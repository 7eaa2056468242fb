"""What root sees of vLLM that was built on the host. One look where none was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe.as_root_stack import looked_over
from sparkfleet.audit.probe.look import Looks, Parameters, Seen, run

BUILDS = Path("/opt/sparkfleet/vllm-source")
UNIT = "sparkfleet-vllm-source.service"
NOTHING = "no build\n"
PROPERTIES = "Id,LoadState,ActiveState,Result"


def files(parameters: Parameters) -> Mapping[str, Seen]:
    """What was changed since the build in use was installed, and what others than root can write."""
    path = BUILDS / "current"
    return looked_over(BUILDS, path.resolve() if path.is_dir() else None, "vllm_source", NOTHING)


def unit(parameters: Parameters) -> Mapping[str, Seen]:
    """The unit that builds, as PID 1 has it."""
    words = ("systemctl", "show", "-p", PROPERTIES, "--", UNIT)
    return {"vllm_source_unit": run(words, shown=f"systemctl show {UNIT}")}


LOOKS: dict[str, Looks] = {"vllm_source_changed": files, "vllm_source_unit": unit}
