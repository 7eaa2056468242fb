"""What a release holds for users' own environments: constraints, and a pyproject.toml to copy from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparkhost.base.files import write_atomic

FILES = ALL, CUDA, SNIPPET = "constraints.txt", "cuda-constraints.txt", "pyproject-snippet.toml"
HEADER = "# managed by sparkfleet (measure: stack)\n"
# What must be the build for this host's CUDA; the rest is a matter of taste.
OF_CUDA = re.compile(r"torch|torchvision|torchaudio|torchcodec|triton|vllm|(nvidia|cuda)-.*|cuda-python")
# No version is less than that: asking for one fails, and says why, instead of bringing in libraries for CUDA 12.
NEVER = ("flash-attn<0", "flash-attn-3<0")


def constraints(versions: Mapping[str, str], *, cuda: bool) -> Sequence[str]:
    """One line a distribution, sorted. `cuda`: those alone that must fit this host's CUDA."""
    names = [name for name in sorted(versions) if not cuda or OF_CUDA.fullmatch(name)]
    return [*(f"{name}=={versions[name]}" for name in names), *NEVER]


def snippet(versions: Mapping[str, str]) -> str:
    """For a project's pyproject.toml: `uv add vllm` then resolves to these builds on a Spark, and to any elsewhere."""
    spark = "sys_platform == 'linux' and platform_machine == 'aarch64'"
    lines = [f'    "{line}; {spark}",' for line in constraints(versions, cuda=True) if not line.endswith("<0")]
    return "\n".join(
        [
            HEADER + "# Copy it into your project's pyproject.toml.",
            "[tool.uv]",
            "constraint-dependencies = [",
            *lines,
            "]",
            "# SDPA instead: --attn_implementation sdpa.",
            "override-dependencies = [\"flash-attn; sys_platform != 'linux' or platform_machine != 'aarch64'\"]",
            "",
        ]
    )


def written_for_users(root: Path, versions: Mapping[str, str]) -> list[str]:
    """Writes the files into a release; their names."""
    texts = {
        ALL: HEADER + "".join(f"{line}\n" for line in constraints(versions, cuda=False)),
        CUDA: HEADER + "".join(f"{line}\n" for line in constraints(versions, cuda=True)),
        SNIPPET: snippet(versions),
    }
    for name, text in texts.items():
        write_atomic(root / name, text.encode(), 0o644)
    return list(texts)
