"""A job's promise in the words of the programs inside it, by environment variables (docs/training.md lists them).

The kernel holds the CPU side of a promise (MemoryMax=), nobody holds CUDA memory. What frameworks can be told, they
hold themselves, and then fail with an exception of their own instead of being ended. Only what the user has not set is
set, and only what the command's own release is known to accept: PyTorch raises for a word that it does not know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sparkhost.base import gpu_sample
from sparkhost.base.units import GIB
from sparkhost.launcher import job_stack
from sparkhost.launcher.holders import meminfo
from sparkhost.launcher.job_stack import Release

TORCH_ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""The old name and the new one (2.10): PyTorch reads either, vLLM looks into the old one only."""
JAX_FRACTION = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")
"""Every release of JAX knows the first; a user of newer ones may have set the second."""
KNOWS_FRACTION: Release = (2, 10)
"""The first PyTorch with `per_process_memory_fraction` (its release notes, pull request 161035)."""
TOLERATES_SEGMENTS: Release = (0, 27)
"""vLLM's sleep mode asserted that there are no expandable segments (pull request 14189) until pull request 40812."""
BUILD_MEMORY = 8 * GIB
"""What one compiler of a JIT build takes at most: 3 to 8 GiB are reported (docs/facts.md)."""
CPU_SIDE = 4 * GIB
"""What of a promise JAX is not told of, or an eighth: it takes all that it is told of at its start."""


class Host(NamedTuple):
    """What fractions are of. `total`: MemTotal, bytes; `unified`: GPUs take their memory from it; `cores`: usable."""

    total: int
    unified: bool
    cores: int


def this_host() -> Host:
    """Unified only where the sampler says so: on a host with a GPU that has own memory a promise says nothing of it."""
    sample = gpu_sample.read(gpu_sample.PATH, 30.0)
    unified = not sample.problem and not sample.has_own
    return Host(meminfo().get("MemTotal", 0), unified, len(os.sched_getaffinity(0)))


def fraction(part: int, total: int) -> str | None:
    """`0.5012`, never more than the share that it stands for; None where it is no fraction."""
    share = part * 10_000 // total if total else 0
    return f"{share / 10_000:.4f}" if 0 < share < 10_000 else None


def variables(
    promise: int, host: Host, releases: Mapping[str, Release], given: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """What to set beside the variables that are `given`, and what to tell the user. `promise`: bytes."""
    found: dict[str, str] = {}
    notes: list[str] = []
    if "MAX_JOBS" not in given:
        found["MAX_JOBS"] = str(max(1, min(host.cores, promise // BUILD_MEMORY)))
    share = fraction(promise, host.total)
    if not host.unified or share is None:
        return found, notes
    if releases.get("torch", (0, 0)) >= KNOWS_FRACTION:
        words = f"per_process_memory_fraction:{share}"
        if theirs := [name for name in TORCH_ALLOCATOR if name in given]:
            if not any("per_process_memory_fraction" in given[name] for name in theirs):
                notes.append(f"{theirs[0]} is yours: PyTorch is not told of the promise; add {words} to it")
        else:
            if releases.get("vllm", TOLERATES_SEGMENTS) >= TOLERATES_SEGMENTS and "torch_memory_saver" not in releases:
                words = f"expandable_segments:True,{words}"
            found.update(dict.fromkeys(TORCH_ALLOCATOR, words))
    jax = fraction(promise - min(CPU_SIDE, promise // 8), host.total)
    if jax is not None and not any(name in given for name in JAX_FRACTION):
        found[JAX_FRACTION[0]] = jax
    return found, notes


def told(
    promise: int, argv: Sequence[str], given: Mapping[str, str], host: Host | None = None
) -> tuple[dict[str, str], list[str]]:
    """`variables` for a command on this host; nothing where that cannot be found out: a job never waits for it."""
    try:
        directory = Path.cwd()
        releases = job_stack.releases(argv, given, directory)
        if not job_stack.has_cuda(argv, given, directory):
            releases.pop("torch", None)
        return variables(promise, host or this_host(), releases, given)
    except (OSError, ValueError):
        return {}, []
