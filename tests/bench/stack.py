"""What the stack costs: nice -n 19 .venv/bin/python -m tests.bench.stack [--megabytes 200] [--rounds 3] [PART …]

As root, without hosts: `rerun`, `verify`, `install` and `mirror` (`stack_mirror`) on wheels that are made here, of
random bytes: one large library, some middling ones, and thousands of small files. Medians over rounds in which each
way has its turn, and ratios. `--lab` runs reruns of a deploy of the profile `lab` on lab hosts instead.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sparkhost.stack import build as stack_build
from sparkhost.stack import hashes as stack_hashes
from sparkhost.stack import store as stack_store
from sparkhost.stack.resources import StackRelease
from sparkhost.stack.verify import walk
from tasks.stack import request
from tests.bench import stack_mirror
from tests.bench.deploy import seconds
from tests.integration.deploying import fleet
from tests.lab import Lab
from tests.unit.stack_hosts import INTERPRETER, UV
from tests.unit.stack_wheels import lock_of, wheel

ROOT = Path(__file__).resolve().parents[2]
SMALL_FILES = 4000
THREADS = 8
"""What the verifier had before it had processes."""
RERUN = """
import json, sys; from pathlib import Path
from sparkhost.stack import store as stack_store; stack_store.STORE = Path(sys.argv[1])
from sparkhost.base.converge import main; sys.exit(main(json.load(sys.stdin)))
"""


def made(folder: Path, megabytes: int) -> list[Path]:
    """Wheels of about that size: half of it one library, a third four others, the rest small files."""
    noise = random.Random(7)
    size = megabytes * 10**6
    wheels = [wheel(folder, "large", files={"large/lib.so": noise.randbytes(size // 2)})]
    for number in range(4):
        name = f"middling{number}"
        wheels.append(wheel(folder, name, files={f"{name}/lib.so": noise.randbytes(size // 12)}))
    small = {
        f"small/m{number}.py": b"#" + noise.randbytes(size // 12 // SMALL_FILES).hex().encode() + b"\n"
        for number in range(SMALL_FILES)
    }
    return [*wheels, wheel(folder, "small", files=small)]


def medians(rounds: int, ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each way; they take turns, so that a busy machine slows all."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.monotonic()
            way()
            taken[name].append(time.monotonic() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def show(title: str, seconds: Mapping[str, float], base: str, size: int = 0) -> None:
    """A row a way: seconds, GB/s where it is about bytes, and how many times the base's time."""
    table = Table("way", "s", *(["GB/s"] if size else []), f"/ {base}", title=title)
    for name, value in seconds.items():
        speed = [f"{size / 1e9 / value:.2f}"] if size else []
        table.add_row(name, f"{value:.2f}", *speed, f"{value / seconds[base]:.2f}")
    Console(width=110).print(table)


class Bench:
    """A store in a folder of its own, and wheels for it."""

    def __init__(self, folder: Path, megabytes: int, rounds: int) -> None:
        self.folder, self.rounds = folder, rounds
        stack_store.STORE = folder / "stacks"
        (folder / "wheels").mkdir()
        self.wheels = made(folder / "wheels", megabytes)
        self.lock = lock_of(self.wheels, platform.machine())
        self.request = request(self.lock)
        self.bytes = sum(path.stat().st_size for path in self.wheels)
        self.build()

    def build(self) -> None:
        """As a deploy does it, from uploaded wheels."""
        shutil.rmtree(stack_store.home(self.lock.release), ignore_errors=True)
        files = {one.sha256: self.folder / "wheels" / one.filename for one in self.lock.wheels}
        wheels = [stack_build.Wheel(*one) for one in self.request["wheels"]]
        stack_build.build(self.lock.release, self.lock.digest, wheels, files, UV, INTERPRETER)

    def rerun(self) -> None:
        release = StackRelease("lab", {platform.machine(): self.request}, INTERPRETER, UV)
        measure = {"name": "stack", "resources": [release.to_json()]}
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "files" / "host")}

        def ask(measures: Sequence[object]) -> None:
            asked = json.dumps({"action": "plan", "modules": ["sparkhost.stack.resources"], "measures": measures})
            words = [sys.executable, "-c", RERUN, str(stack_store.STORE)]
            done = subprocess.run(words, input=asked, env=environment, capture_output=True, text=True, check=True)
            if any(one["changes"] or one["error"] for one in json.loads(done.stdout)["plan"].values()):
                raise SystemExit(f"bench: there is something to do: {done.stdout[:300]}")

        ways = {"empty request": lambda: ask([]), "stack, nothing to do": lambda: ask([measure])}
        show("rerun on the host", medians(self.rounds * 3, ways), "empty request")

    def verify(self) -> None:
        root = stack_store.home(self.lock.release)
        paths = sorted(walk(root))
        regular = "\0".join(path for path in paths if not (root / path).is_symlink()).encode()
        size = sum((root / path).lstat().st_size for path in paths)
        cores = len(os.sched_getaffinity(0))

        def sums(count: int) -> None:
            words = ["xargs", "-0", "-P", str(count), "-n", "256", "sha256sum"]
            subprocess.run(words, input=regular, cwd=root, stdout=subprocess.DEVNULL, check=True)

        def threads() -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda path: stack_hashes.one(root, path), paths))

        ways = {
            "sha256sum, 1": lambda: sums(1),
            "verifier, 1 process": lambda: stack_hashes.hashes(root, paths, 1),
            f"sha256sum, {cores} at a time": lambda: sums(cores),
            f"verifier, {cores} processes": lambda: stack_hashes.hashes(root, paths, cores),
            f"verifier with {THREADS} threads instead": threads,
        }
        show(f"hashes of {len(paths)} files, {size / 1e6:.0f} MB", medians(self.rounds * 2, ways), "sha256sum, 1", size)

    def install(self) -> None:
        requirements = self.folder / "requirements.txt"
        requirements.write_text(
            "".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in self.lock.wheels)
        )

        def plain(*more: str) -> None:
            aside, cached = self.folder / "plain", self.folder / "cache"
            for path in (aside, cached):
                shutil.rmtree(path, ignore_errors=True)
            uv = [UV, "--offline", "--no-config", "-q", "--cache-dir", str(cached)]
            subprocess.run([*uv, "venv", "--python", INTERPRETER, str(aside)], check=True)
            words = ["pip", "sync", "--python", str(aside / "bin" / "python"), "--no-index", "--require-hashes"]
            words += ["--find-links", str(self.folder / "wheels"), *more, str(requirements)]
            subprocess.run([*uv, *words], check=True)

        ways = {
            "uv pip sync": plain,
            "uv pip sync --compile-bytecode": lambda: plain("--compile-bytecode"),
            "ours: copied, built, verified": self.build,
        }
        show(f"install of {self.bytes / 1e6:.0f} MB of wheels", medians(self.rounds, ways), "uv pip sync")

    def mirror(self) -> None:
        stack_mirror.main(self.folder, self.wheels, self.rounds)


def lab_rerun(rounds: int) -> None:
    """A rerun with nothing to do, with the stack and without it, on one lab host."""
    lab = Lab()
    host = lab.host("spark1")
    host.clean()
    with tempfile.TemporaryDirectory() as directory:
        ours = fleet(lab, [host], Path(directory) / "with.yaml", {"stack": {"profile": "lab"}})
        others = fleet(lab, [host], Path(directory) / "without.yaml", {"stack": {"state": "unmanaged"}})
        first = medians(1, {"first": lambda: seconds(lab, ours, "deploy.py")})["first"]
        ways = {
            "all but the stack": lambda: seconds(lab, others, "deploy.py"),
            "with the stack": lambda: seconds(lab, ours, "deploy.py"),
        }
        show(f"rerun on a lab host (first deploy: {first:.1f} s)", medians(rounds, ways), "all but the stack")


def main() -> int:
    parts = ("rerun", "verify", "install", "mirror")
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(parts)}; all where none is named")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lab", action="store_true", help="on lab hosts")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if asked.lab:
        lab_rerun(asked.rounds)
        return 0
    if os.geteuid() != 0:
        sys.exit("bench: as root: a release belongs to root, which is verified")
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), asked.megabytes, asked.rounds)
        for part in asked.parts or parts:
            getattr(bench, part)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
