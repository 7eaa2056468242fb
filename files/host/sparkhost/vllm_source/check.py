"""What a build needs of a host before it begins: tools, room on the disk, a cap to run under."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sparkhost.stack.rules import CUDA_LIBRARY
from sparkhost.stack.verify import site_packages
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.steps import Build, interpreter
from sparkhost.vllm_source.store import variables_of

GIB = 2**30
# Of vLLM for one GPU architecture: its history and those of CUTLASS and the others that cmake fetches (2 GiB), objects
# and libraries with what the compilers keep meanwhile (10), tools, wheels and the image (3). Estimated, not measured.
CUDA_WORK = 15 * GIB
CUDA_RESULT = 3 * GIB
# Without CUDA there is nothing large to compile.
PLAIN_WORK = PLAIN_RESULT = GIB // 4
INCLUDES = Path("/usr/include")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def wrong(build: Build) -> Iterator[str]:
    """What stands in the way, each with its remedy; nothing where a build can begin."""
    yield from missing_tools(build)
    yield from missing_room(build)


def for_cuda(build: Build) -> bool:
    """Whether vLLM's setup.py will compile for CUDA: it does where torch is a build for it."""
    return (site_packages(build.stack) / CUDA_LIBRARY).is_file()


def missing_tools(build: Build) -> Iterator[str]:
    for name, package in (("git", "git"), ("gcc", "gcc"), ("g++", "g++"), ("make", "make"), ("tar", "tar")):
        if shutil.which(name, path=PATH) is None:
            yield f"there is no {name}: apt-get install {package}"
    if not Path(build.uv).exists():
        yield f"there is no {build.uv}: the measure uv must be present"
    python = interpreter(build)
    if not header_of(python):
        yield f"there is no Python.h for {python}: apt-get install {python.name}-dev"
    if for_cuda(build):
        home = variables_of(build.request).get("CUDA_HOME", "")
        if not home:
            yield "CUDA_HOME is not set for services: the measure cuda_env must be present"
        elif not os.access(f"{home}/bin/nvcc", os.X_OK):
            yield f"there is no {home}/bin/nvcc: apt-get install cuda-toolkit-13-0, or set cuda_env.home"


def header_of(python: Path) -> Path | None:
    """Python.h of an interpreter: the distribution's, or beside an interpreter that is not the distribution's."""
    places = (INCLUDES, python.parent.parent / "include")
    return next((path for place in places if (path := place / python.name / "Python.h").is_file()), None)


def missing_room(build: Build) -> Iterator[str]:
    """By what is free now: what an interrupted build has written already is not asked for again."""
    work, result = (CUDA_WORK, CUDA_RESULT) if for_cuda(build) else (PLAIN_WORK, PLAIN_RESULT)
    work = max(work - size_of(build.work), PLAIN_WORK)
    wanted: dict[int, tuple[Path, int]] = {}
    for place, size in ((vllm_source_record.STATE, work), (vllm_source_store.STORE, result)):
        there = existing(place)
        device = there.stat().st_dev
        wanted[device] = there, wanted.get(device, (there, 0))[1] + size
    for place, size in wanted.values():
        status = os.statvfs(place)
        free = status.f_bavail * status.f_frsize
        if free < size:
            yield (
                f"a build needs {size / GIB:.1f} GiB on {place}, {free / GIB:.1f} GiB are free: free some space there"
            )


def existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def size_of(root: Path) -> int:
    """Bytes on the disk below a directory; 0 where there is none."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(f"{folder}/{name}").st_blocks * 512
            except OSError:
                continue
    return total
