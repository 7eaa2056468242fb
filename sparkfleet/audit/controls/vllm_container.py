"""The container that serves vLLM: the image that was pinned, under its slice's cap, within its share, at boot."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from sparkfleet.audit.controls.kit import judged, malformed, not_applicable, unit_in
from sparkfleet.audit.model import Aspect, Control, Evidence, Judgement, NoEvidence, Severity
from sparkfleet.settings import HostSettings

UNIT = "sparkfleet-vllm.service"
PAGE = 4096


def of_docker(evidence: Evidence, name: str, kind: type) -> Any:
    """What Docker said, as JSON; None where it said that there is none. Raises NoEvidence for anything else."""
    text = evidence.text(name).strip()
    if text == "absent":
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise malformed(evidence, name) from error
    if not isinstance(found, kind):
        raise malformed(evidence, name)
    return found


def pinned(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = settings.vllm_container.reference
    found = of_docker(evidence, "vllm_image", list)
    if found is None:
        return judged(False, wanted, "the image is not there")
    return judged(wanted in found, wanted, ", ".join(map(str, found)) or "no digests")


def serves(settings: HostSettings, wanted: str) -> Judgement | None:
    """That a control has nothing to look at, where nothing is to be served."""
    if settings.vllm_container.model is None:
        return not_applicable(wanted, "vllm_container.model is not set in the fleet file")
    return None


def container(evidence: Evidence) -> dict[str, Any] | None:
    """The container; None where there is none. Raises NoEvidence where a part is missing."""
    found: dict[str, Any] | None = of_docker(evidence, "vllm_container", dict)
    types = {"image": str, "state": str, "cgroup": str, "memory_max": dict, "command": list}
    if found is not None and not all(isinstance(found.get(key), kind) for key, kind in types.items()):
        raise malformed(evidence, "vllm_container")
    return found


def capped(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Its own cap and its slice's are in force, whoever started it."""
    own = settings.vllm_container
    most = int(own.memory_max) // PAGE * PAGE
    wanted = f"{own.reference} below {own.slice}.slice, memory.max {most}"
    if nothing := serves(settings, wanted):
        return nothing
    found = container(evidence)
    if found is None or found["state"] != "running":
        return judged(False, wanted, f"the container {'does not exist' if found is None else 'is ' + found['state']}")
    cgroup, caps = found["cgroup"], found["memory_max"]
    cap = str(caps.get(cgroup, "none"))
    holds = (
        found["image"] == own.reference
        and cgroup.startswith(f"/{own.slice}.slice/")
        and cap.isdecimal()
        and int(cap) <= most
    )
    return judged(holds, wanted, f"{found['image']} in {cgroup or 'no cgroup'}, memory.max {cap}")


def within_share(evidence: Evidence, settings: HostSettings) -> Judgement:
    """The last word on vLLM's command line counts (argparse); without one it would take 0.9 (vLLM's default)."""
    share = settings.vllm_container.gpu_memory_utilization
    wanted = f"--gpu-memory-utilization {share} at most"
    if nothing := serves(settings, wanted):
        return nothing
    found = container(evidence)
    if found is None:
        return judged(False, wanted, "the container does not exist")
    words = [str(word) for word in found["command"]]
    option = "--gpu-memory-utilization"
    given = [w.partition("=")[2] for w in words if w.startswith(f"{option}=")]
    given += [after for word, after in pairwise(words) if word == option]
    if len(given) != 1:
        return judged(False, wanted, f"{len(given)} times {option} on its command line")
    try:
        holds = 0 < float(given[0]) <= share
    except ValueError as error:
        raise NoEvidence(f"{option} is no number: {given[0][:40]}") from error
    return judged(holds, wanted, f"{option} {given[0]}")


def at_boot(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"{UNIT} enabled"
    if nothing := serves(settings, wanted):
        return nothing
    found = unit_in(evidence, "vllm_unit", UNIT)
    state = found.get("UnitFileState", "") or found.get("LoadState", "?")
    return judged(state == "enabled", wanted, state)


CONTROLS = (
    Control(
        id="SPK-SERVER-01",
        title="vLLM's image is the one that was pinned",
        severity=Severity.HIGH,
        measure="vllm_container",
        aspect=Aspect.CONFIGURED,
        why="A tag can be another image tomorrow; a digest cannot.",
        source="docs.docker.com/reference/cli/docker/image/pull, Pull an image by digest",
        manual_fix="docker pull IMAGE@DIGEST, as the fleet file names them",
        evidence=("vllm_image",),
        judge=pinned,
    ),
    Control(
        id="SPK-SERVER-02",
        title="vLLM's container runs that image under its slice's cap",
        severity=Severity.HIGH,
        measure="vllm_container",
        aspect=Aspect.RUNNING,
        why="A container in system.slice is held by nobody's cap, and takes the memory of everybody's jobs.",
        source="docs/facts.md; docker-run(1), --cgroup-parent, --memory",
        manual_fix="systemctl restart sparkfleet-vllm; spark-vllm shows where it runs",
        evidence=("vllm_container",),
        judge=capped,
    ),
    Control(
        id="SPK-SERVER-03",
        title="vLLM takes no more than its share of the memory",
        severity=Severity.HIGH,
        measure="vllm_container",
        aspect=Aspect.RUNNING,
        why="No cgroup counts GPU memory, and on a Spark it is the host's: the share is the only bound. vLLM's own "
        "default is 0.9.",
        source="docs/facts.md; docs.vllm.ai, Engine Arguments, --gpu-memory-utilization",
        manual_fix="systemctl restart sparkfleet-vllm",
        evidence=("vllm_container",),
        judge=within_share,
    ),
    Control(
        id="SPK-SERVER-04",
        title="vLLM's server starts at boot",
        severity=Severity.LOW,
        measure="vllm_container",
        aspect=Aspect.SURVIVES_REBOOT,
        why="What was started by hand is gone after the first reboot.",
        source="systemctl(1), enable",
        manual_fix="systemctl enable sparkfleet-vllm",
        evidence=("vllm_unit",),
        judge=at_boot,
    ),
)
