"""vLLM built on the host from one commit, on top of the stack. Off unless the fleet file asks for it.

Why: when vLLM's wheel stops working on a Spark, a build from source is the way out. By hand it is half an hour of an
SSH session that must not end, with as many compilers as the memory does not hold, beside everybody's jobs, and its
result is one person's. Here it is the same commit on every host, in the background, capped below the jobs and ended
before them, gone on with where it was cut off, and everybody's once it was looked at (`spark-vllm-python`).

What a deploy waits for and what it does not: ADR 13.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sparkfleet.settings import VllmSourceSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.installed import NotInstalled
from sparkhost.base.resource import Resource
from sparkhost.vllm_source.gone import NoVllmSource
from sparkhost.vllm_source.resources import BuildAccount, VllmBuild, VllmOld
from sparkhost.vllm_source.unit import ACCOUNT, UNIT_FILE
from tasks.lib.programs import program
from tasks.lib.sizes import on_host, rule
from tasks.lib.templates import render

PROGRAM = "vllm_source"
PROGRAMS = tuple(f"/usr/local/bin/{name}" for name in ("spark-vllm-python", "spark-vllm-source"))
BUILDER = "/opt/sparkfleet/bin/spark-vllm-build"
CONFIG = "/etc/sparkfleet/vllm-source.json"
STATE = "/var/lib/sparkfleet/vllm-source"
UV = "/usr/local/bin/uv"
MANAGED = "managed by sparkfleet (measure: vllm_source)"


def request(settings: VllmSourceSettings) -> dict[str, Any]:
    """What is to be built, as the host's side takes it: sizes in bytes."""
    return {
        "repository": settings.repository,
        "commit": settings.commit,
        "requirements": settings.requirements,
        "index": settings.index,
        "memory_per_job": int(settings.memory_per_job),
        "max_jobs": settings.max_jobs,
        "reserve": on_host(settings.reserve),
        "variables": dict(settings.variables),
    }


def apply(settings: VllmSourceSettings) -> Sequence[Resource]:
    """The account, the programs, the unit; then the build, which goes on when the deploy has ended."""
    wanted = request(settings)
    unit = render(
        "vllm_source/sparkfleet-vllm-source.service",
        program=BUILDER,
        timeout=int(settings.timeout),
        memory_max=on_host(settings.memory_max),
        rule=rule(settings.memory_max),
        account=ACCOUNT,
    )
    return (
        BuildAccount(f"{STATE}/home"),
        program(PROGRAM, *(f"vllm_source/{part}.py" for part in ("run", "cli", "wants"))),
        *(File(path, render(f"vllm_source/{path.rpartition('/')[2]}"), mode=0o755) for path in (*PROGRAMS, BUILDER)),
        File(CONFIG, json.dumps({"_": MANAGED, **wanted}, indent=2) + "\n"),
        File(UNIT_FILE, unit),
        VllmBuild(wanted, UV, on_host(settings.memory_max)),
        VllmOld(),
    )


def remove(settings: VllmSourceSettings) -> Sequence[Resource]:
    """All of it gone, once no process uses a build."""
    return (NoVllmSource(), *map(NoFile, (*PROGRAMS, BUILDER, CONFIG, UNIT_FILE)), NotInstalled(PROGRAM))
