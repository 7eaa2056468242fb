"""What must not be in a CUDA 13 stack, told from files: the same rules for wheels on the controller and for a host."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import BinaryIO

from sparkhost.base.elf import BadElf, needed, wants_cuda_12

# Top-level packages whose libraries must not want CUDA 12. Others may (CuPy for CUDA 12, CUTLASS for both).
CUDA_13_ONLY = re.compile(r"(torch|torchvision|torchaudio|functorch|vllm|triton)(/|$)")
FLASH_ATTENTION = re.compile(r"flash_attn(_3|_4)?(/__init__\.py|\.py|[^/]*\.so)$")
"""As a top-level module, wherever it came from. Not vLLM's own, which is vllm/vllm_flash_attn."""
VERSION = "torch/version.py"
CUDA_LIBRARY = "torch/lib/libtorch_cuda.so"
CUDA_LINE = re.compile(r"^cuda(?:\s*:[^=]*)?\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|None)\s*$", re.MULTILINE)
WANTED_CUDA = "13.0"


def must_be_cuda_13(path: str) -> bool:
    """Whether a file (below site-packages) is of a package whose libraries are looked at."""
    return bool(CUDA_13_ONLY.match(path)) and ".so" in path.rpartition("/")[2]


def library_problem(path: str, stream: BinaryIO) -> str:
    """Why a library is not fit for CUDA 13; "" where it is."""
    try:
        wrong = wants_cuda_12(needed(stream))
    except BadElf as error:
        return f"{path}: cannot be read as a library: {error}"
    return f"{path}: wants {', '.join(wrong)}: a build for CUDA 12" if wrong else ""


def torch_problem(version: str, files: Iterable[str]) -> str:
    """Why torch is not a build for CUDA 13.0, by its version.py and its files; "" where it is.

    The distribution's metadata say 2.13.0 of the CPU build as well.
    """
    match = CUDA_LINE.search(version)
    cuda = (match[1] or match[2] or "") if match else ""
    if not cuda:
        return f"{VERSION}: cuda is None: the CPU build of torch"
    if CUDA_LIBRARY not in set(files):
        return f"{VERSION}: cuda is {cuda}, but {CUDA_LIBRARY} is not there"
    if cuda != WANTED_CUDA:
        return f"{VERSION}: cuda is {cuda}, expected {WANTED_CUDA}"
    return ""


def flash_attention(path: str) -> bool:
    """Whether a file (below site-packages) makes the upstream flash-attn importable."""
    return bool(FLASH_ATTENTION.match(path))
