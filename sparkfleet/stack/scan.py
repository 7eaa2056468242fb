"""Looks into the downloaded wheels of a lock: what names and versions cannot show."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sparkfleet.stack.lock import Lock
from sparkfleet.stack.mirror import path_of
from sparkhost.stack.rules import VERSION, flash_attention, library_problem, must_be_cuda_13, torch_problem


def scan(lock: Lock, cache: Path) -> list[str]:
    """One line for each file that has no place in a CUDA 13 stack. All wheels must be there."""
    return [line for wheel in lock.wheels for line in look(path_of(wheel, cache))]


def look(path: Path) -> Iterator[str]:
    """What is wrong with the content of one wheel."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.replace("\\", "/") for name in archive.namelist()]
            plain = [installed(name) for name in names]
            for name, where in zip(names, plain, strict=True):
                if flash_attention(where):
                    yield f"{path.name}: {where}: flash-attn"
                elif must_be_cuda_13(where) and (problem := library_problem(where, io.BytesIO(archive.read(name)))):
                    yield f"{path.name}: {problem}"
            if VERSION in plain:
                version = archive.read(names[plain.index(VERSION)]).decode("utf-8", "replace")
                if problem := torch_problem(version, plain):
                    yield f"{path.name}: {problem}"
    except (zipfile.BadZipFile, NotImplementedError) as error:
        yield f"{path.name}: is no wheel: {error}"


def installed(name: str) -> str:
    """Where a wheel's file comes to lie below site-packages: `*.data/purelib` and `platlib` are unpacked there."""
    top, _, rest = name.partition("/")
    kind, _, below = rest.partition("/")
    return below if top.endswith(".data") and kind in ("purelib", "platlib") else name
