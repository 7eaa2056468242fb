"""Which releases of PyTorch and vLLM a command is going to import, as far as file names tell it.

Nothing is run and nothing imported. What cannot be told for sure is unknown, and then nothing is set
that an older release would refuse: a shell script may enter any environment, `uv run --with` makes a
new one, PYTHONPATH may hide one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

STACKS = Path("/opt/sparkfleet/stacks/current")
"""The stack for everybody: `spark-python`."""
SCRIPT_METADATA = b"# /// script"
"""Inline metadata of a script (PEP 723): `uv run` gives it an environment of its own."""
HEAD = 8192

Release = tuple[int, int]


def releases(argv: Sequence[str], environment: Mapping[str, str], directory: Path) -> dict[str, Release]:
    """Name of a distribution → its release, of all in the environment that the command runs in; {} if unknown."""
    try:
        if any((Path(entry) / "torch").is_dir() for entry in environment.get("PYTHONPATH", "").split(":") if entry):
            return {}
        prefix = _prefix(argv, environment, directory)
        sites = list((prefix / "lib").glob("python3*/site-packages")) if prefix else []
        return _installed(sites[0]) if len(sites) == 1 else {}
    except OSError:
        return {}


def has_cuda(argv: Sequence[str], environment: Mapping[str, str], directory: Path) -> bool:
    """Whether the PyTorch of that environment is built for CUDA: only then its allocator reads the settings."""
    prefix = _prefix(argv, environment, directory)
    return bool(prefix and list((prefix / "lib").glob("python3*/site-packages/torch/lib/libtorch_cuda.so")))


def _prefix(argv: Sequence[str], environment: Mapping[str, str], directory: Path) -> Path | None:
    """The virtual environment of a command."""
    name = Path(argv[0]).name
    if name == "spark-python":
        return STACKS
    if name == "uv":
        return _of_uv(argv, environment, directory)
    for program in _programs(argv[0], environment, directory):
        if program.parent.name == "bin" and (program.parent.parent / "pyvenv.cfg").is_file():
            return program.parent.parent
    return None


def _of_uv(argv: Sequence[str], environment: Mapping[str, str], directory: Path) -> Path | None:
    """The project's environment, for `uv run COMMAND` without any option that could choose another one."""
    if argv[1:2] != ["run"] or len(argv) < 3 or argv[2].startswith("-"):
        return None
    script = directory / argv[2]
    if script.is_file() and SCRIPT_METADATA in _head(script):
        return None
    for project in (directory, *directory.parents):
        if (project / "pyproject.toml").is_file():
            prefix = project / environment.get("UV_PROJECT_ENVIRONMENT", ".venv")
            return prefix if (prefix / "pyvenv.cfg").is_file() else None
    return None


def _programs(word: str, environment: Mapping[str, str], directory: Path) -> Iterator[Path]:
    """The program of a word as a shell finds it, and the interpreter that its first line names. Links are not followed:
    a virtual environment's python is a link to the system's.
    """
    places = [directory] if "/" in word else [Path(p) for p in environment.get("PATH", "").split(":") if p]
    found = next((p / word for p in places if os.access(p / word, os.X_OK) and (p / word).is_file()), None)
    if found is None:
        return
    yield found
    first = _head(found).split(b"\n", 1)[0].split()
    if first and first[0].startswith(b"#!/"):
        yield Path(os.fsdecode(first[0][2:]))


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEAD)


def _installed(site: Path) -> dict[str, Release]:
    """By the names of `*.dist-info` directories: torch-2.13.0+cu130.dist-info."""
    found: dict[str, Release] = {}
    for name in os.listdir(site):  # noqa: PTH208 - names, of thousands of entries
        distribution, dash, rest = name.removesuffix(".dist-info").partition("-")
        numbers = rest.split(".")
        if dash and name.endswith(".dist-info") and len(numbers) > 1 and all(n.isdecimal() for n in numbers[:2]):
            found[distribution.lower()] = (int(numbers[0]), int(numbers[1]))
    return found
