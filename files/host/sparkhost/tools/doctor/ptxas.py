"""The assembler that Triton takes for a GB10, and why (docs/facts.md: 8).

Triton up to 3.5 has one bundled `ptxas`, which lacks sm_121a in 3.5.0, and takes another from TRITON_PTXAS_PATH. Since
3.6 it has a `ptxas-blackwell` of its own for these GPUs, and takes another from TRITON_PTXAS_BLACKWELL_PATH. Where the
variable names no program it takes the bundled one, without a word (read in the wheels of 3.5.0 and 3.6.0).
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.venv import Venv

ARCHITECTURE = b"sm_121a"
TOOLKIT = "/usr/local/cuda/bin/ptxas"


class Ptxas(NamedTuple):
    """`path`: the program; `because`: why it is the one; `variable`: what to set for another one."""

    path: Path
    because: str
    variable: str


def release(version: str) -> tuple[int, int]:
    """The first two numbers of a version; (0, 0) where it has none."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def chosen(venv: Venv, environment: Mapping[str, str]) -> Ptxas | None:
    """The ptxas that the venv's Triton runs for a GB10; None without Triton."""
    triton = venv.has("triton", "pytorch-triton")
    if triton is None:
        return None
    newer = release(triton.version) >= (3, 6)
    variable = "TRITON_PTXAS_BLACKWELL_PATH" if newer else "TRITON_PTXAS_PATH"
    named = environment.get(variable)
    if named and Path(named).is_file():
        return Ptxas(Path(named), f"{variable} names it", variable)
    bundled = triton.info.parent / "triton" / "backends" / "nvidia" / "bin" / ("ptxas-blackwell" if newer else "ptxas")
    reason = f"{variable} names {named}, where no file is" if named else f"{variable} is not set"
    return Ptxas(bundled, f"{triton} brings it along, and {reason}", variable)


def knows(path: Path) -> bool:
    """Whether the program names the architecture anywhere: its list of --gpu-name values is plain text in it."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(ARCHITECTURE) >= 0


def look(venv: Venv, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with the one that is chosen."""
    ptxas = chosen(venv, environment)
    if ptxas is None:
        return
    fix = f"export {ptxas.variable}={TOOLKIT} (the measure cuda_env sets it for every session)"
    try:
        if not knows(ptxas.path):
            yield Finding(
                "ptxas-sm121a",
                "broken",
                str(ptxas.path),
                f"this ptxas does not know sm_121a; it is used because {ptxas.because}",
                "Triton's kernels for a GB10 fail with \"sm_121a is not defined for option 'gpu-name'\"",
                fix,
            )
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else "is empty"
        yield Finding(
            "ptxas-missing",
            "broken",
            str(ptxas.path),
            f"{problem}; it would be used because {ptxas.because}",
            "Triton compiles every kernel with it",
            fix,
        )
