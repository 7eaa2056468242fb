"""What a lock must not hold, told from names, versions and hashes alone: before anything is downloaded, no I/O.

What only the wheels' content can show (libraries that want CUDA 12, a CPU build under an honest name) is looked for in
the downloaded wheels (`scan`) and on the host. Ranges: read from PyPI's metadata and from the wheels, November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator

from packaging.utils import parse_wheel_filename
from packaging.version import Version

from sparkfleet.stack.lock import Lock, Wheel

FLASH_ATTENTION = ("flash-attn", "flash-attn-3", "flash-attn-4", "vllm-flash-attn")
CU130 = "cu130"
# Releases whose wheel without a local version (PyPI's) is a build for CUDA 13.0: from the first on, below the second.
PYPI_TORCH = {"aarch64": ("2.11.0", "2.15"), "x86_64": ("2.11.0", "2.15")}
PYPI_VLLM = "0.20.0"
# Compilers and linkers of a later CUDA make code that a 13.0 driver does not load.
TOOLKIT_13_0 = (
    "nvidia-cuda-nvcc",
    "nvidia-cuda-crt",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-runtime",
    "nvidia-nvvm",
    "nvidia-nvjitlink",
)
TORCH_FAMILY = ("torch", "torchvision", "torchaudio", "triton", "vllm")


def problems(lock: Lock) -> list[str]:
    """One line for each reason not to install this; none where it is fine."""
    return [*everywhere(lock), *cuda_12(lock), *torch(lock), *vllm(lock), *toolkit(lock)]


def everywhere(lock: Lock) -> Iterator[str]:
    for wheel in lock.wheels:
        if wheel.name in FLASH_ATTENTION:
            yield f"{wheel.requirement}: its libraries want CUDA 12, and SDPA is faster: take out what asks for it"
        _, _, _, tags = parse_wheel_filename(wheel.filename)
        platforms = {tag.platform for tag in tags}
        if not any(platform == "any" or platform.endswith(f"_{lock.machine}") for platform in platforms):
            yield f"{wheel.requirement}: {wheel.filename} is not for {lock.machine}"


def cuda_12(lock: Lock) -> Iterator[str]:
    """`-cu12` in a name proves nothing (CUTLASS has one of each), except for what torch itself depends on."""
    for wheel in lock.wheels:
        local = Version(wheel.version).local or ""
        if wheel.name in TORCH_FAMILY and local.startswith(("cu12", "cu11")):
            yield f"{wheel.requirement}: a build for CUDA {local[2:4]}, a Spark has 13.0: take {CU130}"
        if wheel.name in ("nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12"):
            yield f"{wheel.requirement}: CUDA 12's own libraries come along: torch or vLLM is a build for CUDA 12"


def torch(lock: Lock) -> Iterator[str]:
    found = lock.wheel("torch")
    if found is None:
        return
    version = Version(found.version)
    if version.local:
        if version.local == "cpu":
            yield f"{found.requirement}: the CPU build: take {CU130}"
        elif version.local != CU130 and not version.local.startswith(("cu12", "cu11")):
            yield f"{found.requirement}: not the {CU130} build"
        return
    first, end = (Version(text) for text in PYPI_TORCH[lock.machine])
    if version < first:
        what = "the CPU build" if lock.machine == "aarch64" else "a build for CUDA 12"
        yield f"{found.requirement}: on PyPI this is {what} for {lock.machine}: take {first} or later, or +{CU130}"
    elif version >= end:
        yield f"{found.requirement}: on PyPI this is no build for CUDA 13.0 any more (2.15.0 is cu132): take +{CU130}"


def vllm(lock: Lock) -> Iterator[str]:
    found = lock.wheel("vllm")
    if found is None:
        return
    version = Version(found.version)
    if not version.local and version < Version(PYPI_VLLM):
        yield f"{found.requirement}: on PyPI this wants libcudart.so.12: take {PYPI_VLLM} or later, or a +{CU130} wheel"
    if lock.wheel("torch") is None:
        yield f"{found.requirement}: without torch in the same lock: it would be another one on every host"


def toolkit(lock: Lock) -> Iterator[str]:
    for wheel in filter(None, map(lock.wheel, TOOLKIT_13_0)):
        if Version(wheel.version).release[:2] != (13, 0):
            yield f"{wheel.requirement}: not of CUDA 13.0, which is what the driver takes: constrain it to <13.1"


def described(wheel: Wheel) -> str:
    """A wheel in a few words, for a message."""
    return f"{wheel.requirement} ({wheel.size / 1e6:.1f} MB)"
