"""Known errors, as data: each module has those of one kind."""

from __future__ import annotations

from sparkhost.tools.doctor.rules import drivers, kernels, libraries, memory, serving
from sparkhost.tools.doctor.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    *libraries.RULES,
    *drivers.RULES,
    *kernels.RULES,
    *memory.RULES,
    *serving.RULES,
)
# Where the first was found, the others say the same less exactly, and are left out.
SAYS_MORE: dict[str, frozenset[str]] = {
    "kernel-killed": frozenset(("killed",)),
    "build-killed": frozenset(("killed",)),
    "earlyoom": frozenset(("killed",)),
    "bus-error": frozenset(("killed",)),
    "ray-memory": frozenset(("out-of-memory", "killed")),
    "shared-memory": frozenset(("out-of-memory",)),
    "cuda-free-pages": frozenset(("out-of-memory",)),
    "proprietary-module": frozenset(("no-gpu",)),
    "persistenced-socket": frozenset(("driver-mismatch",)),
    "sm120-only": frozenset(("illegal-access",)),
    "torch-cpu": frozenset(("cuda-13-library",)),
    "flash-attn": frozenset(("torch-abi",)),
    "static-tls": frozenset(("memory-error",)),
    "nccl-verbs": frozenset(("nccl-system", "nccl-timeout")),
    "nccl-connect": frozenset(("nccl-system",)),
}
