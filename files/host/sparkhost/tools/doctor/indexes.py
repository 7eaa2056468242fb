"""Where a project takes packages from: indexes and wheels of CUDA 12 that a Spark would use, too."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.venv import text_of

REQUIREMENTS = re.compile(r"(?:[\w.-]+[-_.])?requirements[\w.-]*\.(?:txt|in)")
# An index or a wheel's address of CUDA 11 or 12, or a local version (torch==2.5.1+cu121).
CUDA_12 = re.compile(r"(?:/|\+|%2B)cu1[12]\d(?![0-9])")
INDEX = re.compile(r"\s*(?:--(?:extra-)?index-url|--find-links|-i|-f)[\s=]+(\S+)")
# Who names the processor, or another system, has thought of a Spark.
ELSEWHERE = re.compile(r"platform_machine|win32|Windows|[dD]arwin")
LARGEST = 1 << 20


def is_read(name: str) -> bool:
    """Whether a file of that name says where packages come from."""
    return name in ("pyproject.toml", "uv.toml") or REQUIREMENTS.fullmatch(name) is not None


def tables(value: object) -> list[dict[str, Any]]:
    """A table, or those of a list."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def of_uv(settings: dict[str, Any]) -> Iterator[str]:
    """Addresses that uv would use on a Spark, of `[tool.uv]` or uv.toml.

    An index that is `explicit` is for the sources that name it; a source of a group or an extra is
    the user's choice (docs.astral.sh/uv, package indexes).
    """
    sources = settings.get("sources")
    used = [
        entry
        for value in (sources.values() if isinstance(sources, dict) else ())
        for entry in tables(value)
        if not ELSEWHERE.search(str(entry.get("marker", ""))) and "group" not in entry and "extra" not in entry
    ]
    named = {str(entry["index"]) for entry in used if "index" in entry}
    for index in tables(settings.get("index", [])):
        if index.get("explicit") is not True or str(index.get("name")) in named:
            yield str(index.get("url", ""))
    yield from (str(entry["url"]) for entry in used if "url" in entry)
    for key in ("index-url", "extra-index-url", "find-links"):
        value = settings.get(key, [])
        yield from map(str, value if isinstance(value, list) else [value])


def of_pyproject(document: dict[str, Any]) -> Iterator[str]:
    """Addresses and requirements that hold on a Spark."""
    project, tool = document.get("project"), document.get("tool")
    required = project.get("dependencies") if isinstance(project, dict) else None
    for requirement in required if isinstance(required, list) else ():
        yield from of_requirement(str(requirement))
    settings = tool.get("uv") if isinstance(tool, dict) else None
    if isinstance(settings, dict):
        yield from of_uv(settings)


def of_requirement(line: str) -> Iterator[str]:
    """A requirement without its marker, where that does not leave a Spark out."""
    wanted, _, marker = line.partition(";")
    if not ELSEWHERE.search(marker):
        yield wanted.strip()


def of_requirements(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if index := INDEX.match(line):
            yield index[1]
        elif line.strip() and not line.lstrip().startswith("#"):
            yield from of_requirement(line)


def look(path: Path) -> Iterator[Finding]:
    """One finding a file, with the first line.

    A file that is no TOML says nothing: its own program tells.
    """
    text = text_of(path, LARGEST)
    try:
        if path.name.endswith(".toml"):
            document = tomllib.loads(text)
            found = list(of_uv(document) if path.name == "uv.toml" else of_pyproject(document))
        else:
            found = list(of_requirements(text))
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    wrong = next((word for word in found if CUDA_12.search(word)), None)
    if wrong is None:
        return
    numbers = (number for number, line in enumerate(text.splitlines(), 1) if wrong in line)
    yield Finding(
        "cuda-12-index",
        "warning",
        f"{path}:{next(numbers, 1)}",
        wrong,
        "without a marker it holds for a Spark, too: that gets builds for CUDA 12, or no wheel at all",
        "a second source for the cu130 index, with marker = \"platform_machine == 'aarch64'\", and the opposite "
        "marker here; or PyPI, whose aarch64 torch is a cu130 build from 2.11 on",
    )
