"""A container of vLLM, as NVIDIA's playbook has it, serving a model under a slice's cap. Off unless asked for.

Why: for serving alone an image is known to work on a Spark, and needs no build. But `docker run` from a page of
instructions takes whatever the tag is today, as much as it likes of the one memory that CPU and GPU share, is in
system.slice, where no user's cap holds it, and is started again and again where memory does not come back. Here it is
one image by its digest, at most 0.7 of the memory (0.4 unless set), under a slice, ended before sshd is, started at
boot, and started again three times in ten minutes, each time only once what it takes is available.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparkfleet.settings import VllmContainerSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.installed import NotInstalled
from sparkhost.base.resource import Resource
from sparkhost.base.service import NoService, Service
from sparkhost.base.systemd import UNIT_DIRECTORY
from sparkhost.vllm_container.resources import ContainerHost, ContainerImage, NoImages, OldImages
from tasks.lib.programs import program
from tasks.lib.templates import render

PROGRAM = "vllm_container"
COMMAND = "/usr/local/bin/spark-vllm"
UNIT = "sparkfleet-vllm.service"
UNIT_FILE = f"{UNIT_DIRECTORY}/{UNIT}"
NAME = "sparkfleet-vllm"
"""Of the container."""


def unit(settings: VllmContainerSettings) -> str:
    """The service's unit file."""
    return render(
        "vllm_container/sparkfleet-vllm.service",
        name=NAME,
        reference=settings.reference,
        model=settings.model,
        models=settings.models,
        cache=settings.cache,
        address=f"[{settings.address}]" if ":" in settings.address else settings.address,
        port=settings.port,
        slice=f"{settings.slice}.slice",
        memory_max=int(settings.memory_max),
        gpus={"all": "--gpus all", "cdi": "--device nvidia.com/gpu=all", "none": ""}[settings.gpus],
        utilization=settings.gpu_memory_utilization,
        loader="" if settings.load_format == "auto" else f" --load-format {settings.load_format}",
        command=COMMAND,
        arguments=settings.arguments,
    )


def apply(settings: VllmContainerSettings) -> Sequence[Resource]:
    """The image first: without it nothing else is touched, and a server that runs goes on with the old one."""
    served = (File(UNIT_FILE, unit(settings)), Service(UNIT, [UNIT_FILE], only_with=UNIT_FILE))
    return (
        ContainerHost(f"{UNIT_DIRECTORY}/{settings.slice}.slice"),
        ContainerImage(settings.reference, int(settings.space)),
        program(PROGRAM, "vllm_container/cli.py", "vllm_room"),
        File(COMMAND, render("vllm_container/spark-vllm"), mode=0o755),
        *(served if settings.model else (NoService(UNIT), NoFile(UNIT_FILE))),
        OldImages(settings.reference),
    )


def remove(settings: VllmContainerSettings) -> Sequence[Resource]:
    """The server stopped, and the images that we have pulled gone, unless somebody uses one. Models and cache stay."""
    return (NoService(UNIT), NoFile(UNIT_FILE), NoFile(COMMAND), NotInstalled(PROGRAM), NoImages())
