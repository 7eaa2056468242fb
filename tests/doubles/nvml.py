"""Builds the double of NVIDIA's library, `nvml.c`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")


def build(folder: Path) -> Path:
    """The library, built in a folder."""
    compiler = shutil.which("cc")
    assert compiler, "needs a C compiler: make test installs one"
    built = folder / "libnvidia-ml-double.so"
    subprocess.run([compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", built, SOURCE], check=True)
    return built
