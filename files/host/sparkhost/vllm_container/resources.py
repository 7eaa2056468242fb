"""Images of containers that are pinned by digest: pulled, and removed again once nothing uses them.

Docker is asked by its command line: `docker image inspect IMAGE@sha256:…` knows an image by that name only if it came
from that repository with that digest, whatever tags say (docs.docker.com/reference/cli/docker/image/pull).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, write_atomic
from sparkhost.base.pid1 import run
from sparkhost.base.resource import Check, Context, Failed, Refused, Resource, Step
from sparkhost.training_slice import docker

# What we have pulled: {"images": ["nvcr.io/nvidia/vllm@sha256:…"]}. Others' images are theirs to remove.
RECORD = Path("/var/lib/sparkfleet/vllm-container.json")
GIB = 2**30
PULL_TIMEOUT = 1700.0
"""Seconds. Less than a deploy waits for; layers that are complete stay, and the next deploy goes on from there."""


def pulled() -> list[str]:
    """The images that we have pulled, as far as the record tells."""
    try:
        images = json.loads(bounded.read_text(RECORD))["images"]
    except FileNotFoundError:
        return []
    except (Failed, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Failed(f"{RECORD} is damaged: remove it, and images of ours with docker image rm") from error
    return [str(image) for image in images]


def note(images: Sequence[str]) -> None:
    make_directories(RECORD.parent)
    write_atomic(RECORD, json.dumps({"images": sorted(set(images))}).encode(), 0o644)


def image_is_there(reference: str) -> bool:
    return bounded.call(["docker", "image", "inspect", reference], seconds=90).returncode == 0


def check_docker() -> None:
    """Raises Refused where Docker cannot be asked."""
    if shutil.which("docker") is None or not docker.installed():
        raise Refused(
            "Docker is not installed: install docker.io (DGX OS has Docker), or set vllm_container.state to absent"
        )
    if not docker.is_active():
        raise Refused("docker.service is not active: systemctl start docker, then deploy again")


def last_words(result: subprocess.CompletedProcess[str]) -> str:
    return ((result.stderr or result.stdout).strip().splitlines() or [f"exit code {result.returncode}"])[-1]


@dataclass(frozen=True)
class ContainerHost(Check):
    """Refuses where Docker, or the slice that the container is to be in, is missing."""

    kind: ClassVar[str] = "container_host"
    is_basis: ClassVar[bool] = True
    slice_file: str

    def units(self) -> Sequence[str]:
        return (docker.SERVICE,) if docker.installed() else ()

    def check(self, context: Context) -> None:
        check_docker()
        if not Path(self.slice_file).exists() and not context.will_change(self.slice_file):
            raise Refused(
                f"{self.slice_file} is not there, so that nothing would cap the container: set training_slice.state to "
                "present"
            )


@dataclass(frozen=True)
class ContainerImage(Resource):
    """An image, by digest. What it is for comes only after it is there."""

    kind: ClassVar[str] = "container_image"
    is_basis: ClassVar[bool] = True
    reference: str
    """`REPOSITORY@sha256:…`"""
    space: int
    """Bytes that must be free below Docker's directory before a pull."""

    def steps(self, context: Context) -> Iterator[Step]:
        if image_is_there(self.reference):
            return
        free, root = self._free()
        if free < self.space:
            raise Refused(
                f"{root} has {free / GIB:.1f} GiB free, {self.space / GIB:.0f} GiB are needed to pull "
                f"{self.reference}: free some space there, docker system df shows what Docker holds"
            )
        yield Step(self.reference, f"pull the image ({free / GIB:.0f} GiB are free in {root})", self._pull)

    def _free(self) -> tuple[int, str]:
        root = docker.info(".DockerRootDir")
        status = os.statvfs(root)
        return status.f_bavail * status.f_frsize, root

    def _pull(self) -> None:
        note([*pulled(), self.reference])  # before: what a pull that is killed has left is ours as well
        try:
            result = bounded.call(["docker", "pull", "--quiet", self.reference], seconds=PULL_TIMEOUT)
        except bounded.Late as error:
            raise Failed(
                f"{self.reference}: not pulled within {PULL_TIMEOUT / 60:.0f} min; deploy again: whole layers are kept"
            ) from error
        if result.returncode:
            raise Failed(f"{self.reference}: docker pull: {last_words(result)}")


@dataclass(frozen=True)
class OldImages(Resource):
    """Of the images that we have pulled only the wanted one, or none; one that a container uses stays, and is told."""

    kind: ClassVar[str] = "old_images"
    after_reload: ClassVar[bool] = True
    wanted: str
    """A reference, or "" for none at all."""

    def steps(self, context: Context) -> Iterator[Step]:
        others = [image for image in pulled() if image != self.wanted]
        if not others or context.will_change(self.wanted):
            return  # without its image the new server does not run yet: the old one's is still needed
        check_docker()
        for image in others:
            if image_is_there(image) and (users := containers_of(image)):
                context.warnings.append(f"{image} stays: used by {', '.join(users)}")
            else:
                yield Step(image, "remove the old image", partial(remove_image, image))


@dataclass(frozen=True)
class NoImages(OldImages):
    """None of the images that we have pulled: after the server, without a reload in between."""

    kind: ClassVar[str] = "no_images"
    after_reload: ClassVar[bool] = False
    wanted: str = ""


def remove_image(image: str) -> None:
    """Removes an image of ours, if it is there, and forgets about it. Raises Failed."""
    if image_is_there(image):
        run("docker", "image", "rm", image, timeout=300)
    note([known for known in pulled() if known != image])
    if not pulled():
        RECORD.unlink(missing_ok=True)


def containers_of(image: str) -> list[str]:
    """Names of the containers, also of stopped ones, that were made from an image."""
    answer = run("docker", "ps", "--all", "--filter", f"ancestor={image}", "--format", "{{.Names}}")
    return sorted(answer.split())
