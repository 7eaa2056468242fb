"""What the stack costs: `python -m tests.bench.stack [verify] [install]`. Two ways on the same files, in turn.

verify: our look at every file against sha256sum(1) of the same files. install: a release built by us (copied and
hashed, installed by uv, verified, noted) against `uv pip sync` of the same wheels. The wheels (80 MB) are fetched
first, with pip.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sparkhost import stack_store
from sparkhost.files import digest
from sparkhost.stack_build import Wheel, build
from sparkhost.stack_verify import hashes, walk
from tests.unit.stack_hosts import INTERPRETER, UV
from tests.unit.stack_wheels import lock_of

WHEELS = ("numpy", "pandas", "pillow", "scikit-learn", "scipy")
COPIES = 6
"""Of the installed wheels, to have as many files as a stack has within a power of ten."""


def seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def fetched(folder: Path) -> list[Path]:
    """The wheels for this Python. Raises CalledProcessError where they cannot be had."""
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download", "--no-deps"]
    subprocess.run([*pip, "--only-binary", ":all:", "--dest", str(folder), *WHEELS], check=True)
    return sorted(folder.glob("*.whl"))


def plainly(wheels: Sequence[Path], folder: Path) -> None:
    """As a person installs them: `uv venv`, `uv pip sync`, with a cache of this call's own."""
    shutil.rmtree(folder, ignore_errors=True)
    requirements = folder.with_suffix(".txt")
    requirements.write_text("".join(f"{wheel} --hash=sha256:{digest(wheel)}\n" for wheel in wheels))
    environment = {**os.environ, "UV_CACHE_DIR": str(folder.with_suffix(".cache")), "UV_NO_PROGRESS": "1"}
    for words in (
        ("venv", "--python", INTERPRETER, str(folder)),
        ("pip", "sync", "--python", str(folder / "bin/python"), "--compile-bytecode", str(requirements)),
    ):
        subprocess.run([UV, "--offline", "--no-config", "-q", *words], env=environment, check=True)
    shutil.rmtree(folder.with_suffix(".cache"))


def install(wheels: Sequence[Path], folder: Path, rounds: int) -> Table:
    """Ours against uv's own."""
    lock = lock_of(wheels, platform.machine())
    locked = [Wheel(one.name, one.version, one.filename, one.size, one.sha256) for one in lock.wheels]
    where = {one.sha256: path for one in lock.wheels for path in wheels if path.name == one.filename}
    stack_store.STORE = folder / "stacks"

    def ours() -> None:
        shutil.rmtree(stack_store.STORE, ignore_errors=True)
        build(lock.release, lock.digest, locked, where, UV, INTERPRETER)

    pairs = [(seconds(ours), seconds(lambda: plainly(wheels, folder / "plain"))) for _ in range(rounds)]
    size = sum(wheel.stat().st_size for wheel in wheels)
    table = Table(f"install {len(wheels)} wheels, {size / 1e6:.0f} MB", "median, s")
    table.add_row("ours: hashed, installed, verified, noted", f"{statistics.median(a for a, _ in pairs):.2f}")
    table.add_row("uv venv, uv pip sync", f"{statistics.median(b for _, b in pairs):.2f}")
    table.add_row("ours / uv, median of pairs", f"{statistics.median(a / b for a, b in pairs):.2f}")
    return table


def verify(wheels: Sequence[Path], folder: Path, rounds: int) -> Table:
    """Hashes of every file against sha256sum's, by one process and by one a core."""
    plainly(wheels, folder / "one")
    root = folder / "many"
    for number in range(COPIES):
        shutil.copytree(folder / "one", root / str(number), symlinks=True)
    paths = sorted(path for path in walk(root) if not (root / path).is_symlink())
    size = sum((root / path).stat().st_size for path in paths)
    names = b"".join(os.fsencode(path) + b"\0" for path in paths)

    def sums(at_once: int) -> None:
        words = ["xargs", "-0", "-n", "200", "-P", str(at_once), "sha256sum", "--"]
        subprocess.run(words, input=names, cwd=root, check=True, stdout=subprocess.DEVNULL)

    cores = len(os.sched_getaffinity(0))
    hashes(root, paths)  # into the page cache
    rows = [
        (seconds(lambda: hashes(root, paths)), seconds(lambda: sums(1)), seconds(lambda: sums(cores)))
        for _ in range(rounds)
    ]
    table = Table(f"hash {len(paths)} files, {size / 1e9:.2f} GB, {cores} cores", "GB/s", "ours takes, times")
    for index, name in enumerate(("ours", "sha256sum, one process", f"sha256sum, {cores} processes")):
        speed = f"{size / 1e9 / statistics.median(row[index] for row in rows):.2f}"
        table.add_row(name, speed, f"{statistics.median(row[0] / row[index] for row in rows):.2f}")
    return table


def main() -> int:
    parts = {"verify": verify, "install": install}
    parser = argparse.ArgumentParser(description="What the stack costs, side by side with other ways")
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: both")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "wheels").mkdir()
        wheels = fetched(folder / "wheels")
        for name in options.parts or parts:
            (folder / name).mkdir()
            Console(width=110).print(parts[name](wheels, folder / name, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
