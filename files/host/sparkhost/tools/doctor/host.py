"""What is wrong with this machine: swap, page cache, driver, kernel and toolkit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from sparkhost.base.units import GIB, show_size
from sparkhost.launcher.holders import meminfo
from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.venv import text_of

HOST = "this host"
HIDDEN = 8 * GIB
"""Page cache from which on it is worth telling: CUDA counts it as used."""
OLDEST_DRIVER = 580


def look(root: Path = Path("/"), release: str | None = None, path: str | None = None) -> Iterator[Finding]:
    """Every trouble of the host.

    `root`: where its file system is; `release`: of the kernel, by default the running; `path`: by default $PATH.
    """
    yield from swap(root)
    yield from cache(root)
    yield from driver(root, release or os.uname().release)
    yield from toolkit(root)
    yield from compiler(root, os.environ.get("PATH", "") if path is None else path)


def swap(root: Path) -> Iterator[Finding]:
    areas = [line.split() for line in text_of(root / "proc/swaps").splitlines()[1:]]
    if areas:
        named = ", ".join(f"{area[0]} ({show_size(int(area[2]) * 1024)})" for area in areas)
        yield Finding(
            "swap-on",
            "broken",
            HOST,
            named,
            "when memory runs out the host swaps until nothing answers, instead of ending one job",
            "the measure swap keeps it off over reboots; by hand: sudo swapoff -a, while that much is available",
        )


def cache(root: Path) -> Iterator[Finding]:
    memory = meminfo(root / "proc/meminfo")
    available, free = memory.get("MemAvailable", 0), memory.get("MemFree", 0)
    if available - free >= HIDDEN and free < available / 2:
        yield Finding(
            "page-cache",
            "warning",
            HOST,
            f"{show_size(available)} are available, but only {show_size(free)} are free",
            "the rest is page cache: the CUDA runtime counts it as used, so programs that ask it what is free "
            "(vLLM at its start) see too little",
            "spark-run --drop-cache -- COMMAND, or as root: sync; echo 1 > /proc/sys/vm/drop_caches",
        )


def has_gpu(root: Path) -> bool:
    """Whether an NVIDIA display or 3D controller is on the PCI bus (vendor 0x10de, class 0x03)."""
    return any(
        text_of(device / "vendor", 64).strip() == "0x10de" and text_of(device / "class", 64).startswith("0x03")
        for device in (root / "sys/bus/pci/devices").glob("*")
    )


def kernel_driver(root: Path) -> str | None:
    """The version of the driver that the kernel has loaded."""
    match = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text_of(root / "proc/driver/nvidia/version", 4096))
    return match[1] if match else None


def library_driver(root: Path) -> str | None:
    """The version of the driver's libraries: libnvidia-ml.so.1 is a link to a file that is named by it."""
    for link in sorted((root / "usr/lib").glob("*/libnvidia-ml.so.1")):
        match = re.search(r"\.so\.(\d+(?:\.\d+)+)$", os.path.realpath(link))
        if match:
            return match[1]
    return None


def driver(root: Path, release: str) -> Iterator[Finding]:
    """Kernel, kernel module and libraries must be of one driver."""
    kernel, library = kernel_driver(root), library_driver(root)
    if kernel is None and (has_gpu(root) or library is not None):
        modules = [*(root / "lib/modules" / release).rglob("nvidia.ko*")]
        yield Finding(
            "driver-not-loaded",
            "broken",
            HOST,
            f"no NVIDIA driver is loaded; kernel {release} has {'one to load' if modules else 'none'}",
            "CUDA finds no GPU; after an update the kernel may have started without a module of its own",
            "sudo modprobe nvidia, and see what it says"
            if modules
            else f"sudo apt install linux-modules-nvidia-580-open-{release}, or start the kernel before this one",
        )
    if kernel and library and kernel != library:
        yield Finding(
            "driver-mismatch",
            "broken",
            HOST,
            f"the kernel has loaded {kernel}, the libraries are {library}",
            'the driver was updated under a running kernel: "Driver/library version mismatch", and CUDA does not start',
            "reboot",
        )
    if kernel and int(kernel.split(".")[0]) < OLDEST_DRIVER:
        yield Finding(
            "driver-old",
            "broken",
            HOST,
            f"the driver is {kernel}",
            "CUDA 13.0 needs 580.65 or later",
            "update the driver: on DGX OS by its own updates",
        )


def version_in(path: Path) -> tuple[int, int] | None:
    """Of a toolkit, from the version.json that NVIDIA's packages have."""
    try:
        version = str(json.loads(text_of(path))["cuda"]["version"])
        major, minor = (int(part) for part in version.split(".")[:2])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return major, minor


def compiler(root: Path, path: str) -> Iterator[Finding]:
    """The nvcc that builds find first. Ubuntu's package nvidia-cuda-toolkit is CUDA 12.0 in 24.04, in /usr/bin."""
    found = next((each for word in path.split(":") if (each := root / word.strip("/") / "nvcc").is_file()), None)
    if found is None or found.is_relative_to(root / "usr/local/cuda"):
        return
    real = Path(os.path.realpath(found))
    version = version_in(real.parent.parent / "version.json")
    if version is None and real.parent not in (root / "usr/bin", root / "usr/lib/nvidia-cuda-toolkit/bin"):
        return
    if version is None or version[0] < 13:
        yield Finding(
            "nvcc-first",
            "broken",
            str(found),
            f"the first nvcc in PATH is of {'CUDA {}.{}'.format(*version) if version else 'the distribution'}",
            "builds take it: it does not know a GB10 (\"Unsupported gpu architecture 'compute_121a'\"), and DeepSpeed "
            "refuses a toolkit of another CUDA than torch's",
            "export PATH=/usr/local/cuda/bin:$PATH (the measure cuda_env sets it for every session), or "
            "sudo apt remove nvidia-cuda-toolkit",
        )


def toolkit(root: Path) -> Iterator[Finding]:
    path = root / "usr/local/cuda/version.json"
    if (numbers := version_in(path)) is None:
        return
    major, minor = numbers
    version = f"{major}.{minor}"
    if major < 13:
        yield Finding(
            "toolkit-12",
            "broken",
            str(path),
            f"/usr/local/cuda is CUDA {version}",
            "a GB10 (sm_121) is supported since CUDA 13.0: nvcc and ptxas of this one do not know it",
            "sudo update-alternatives --config cuda, or install cuda-toolkit-13-0",
        )
    kernel = kernel_driver(root)
    if major == 13 and minor > 0 and kernel and kernel.startswith("580."):
        yield Finding(
            "toolkit-newer",
            "warning",
            str(path),
            f"/usr/local/cuda is CUDA {version}, and the driver {kernel} is that of 13.0",
            "what this toolkit leaves to the driver to compile (PTX) is refused by an older driver",
            "use CUDA 13.0: sudo update-alternatives --config cuda",
        )
