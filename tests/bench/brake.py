"""How low memory gets, and who is ended, on real memory and real cgroups. `sudo python3 tests/bench/brake.py`

Standard library only, for a large machine, with systemd or without: it makes cgroups named like jobs below the
root of cgroup v2, fills them by `memory_hog.py`, and lets the daemon of this checkout, or of `--code DIR`, act. One
line of JSON a case: lowest MemAvailable as a share of `term_below`, who was ended, how long who stood still.

The innocent has settled while there was plenty; the taker comes after it. With `--code` of an older checkout as well as
without, both are in one run, side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a script, where nothing is installed

from tests.bench.guards import GIB, HOST, Limits, meminfo, watchdog

HOG = Path(__file__).with_name("memory_hog.py")
LONGEST = 60.0
"""Seconds for one case."""


@dataclass(frozen=True)
class Case:
    """One fill. Sizes in GiB, rates in GiB a second (0: as fast as it goes)."""

    name: str
    innocent: float = 2.0
    rate: float = 0.0
    kind: str = "anonymous"
    obeys: bool = True
    processes: int = 1
    threads: int = 16
    second: float = 0.0
    """The rate of another one that goes on growing beside it; 0: there is none."""


CASES = [
    Case("grower alone, obeys"),
    Case("grower alone, ignores", obeys=False),
    Case("grower beside a larger innocent, obeys", innocent=60),
    Case("grower beside a larger innocent, ignores", innocent=60, obeys=False),
    Case("grower at 4 GiB/s beside a larger innocent, ignores", innocent=60, rate=4, obeys=False),
    Case("grower at 1 GiB/s beside a larger innocent, obeys", innocent=60, rate=1),
    Case("16 processes beside a larger innocent, ignore", innocent=60, processes=16, threads=1, obeys=False),
    Case("150 small processes beside a larger innocent", innocent=60, processes=150, threads=1),
    Case("two growers, one slow, ignore", innocent=40, obeys=False, second=1.0),
    Case("shared memory that nobody maps", innocent=50, kind="shared", obeys=False),
    Case("pinned memory", innocent=50, kind="pinned", processes=4, threads=1, obeys=False),
]


class Job:
    """A cgroup named like a job, and the processes in it."""

    def __init__(self, root: Path, number: int) -> None:
        self.path = root / "training.slice" / f"spark-job-1000-{number:08x}.service"
        self.path.mkdir(parents=True)
        for folder in (root, self.path.parent):  # as systemd does: without it no unit has a charge of its own
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text("+memory")
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> None:
        """A memory hog."""
        self.run(sys.executable, str(HOG), *words)

    def run(self, *words: str) -> None:
        def enter() -> None:
            (self.path / "cgroup.procs").write_text("0")

        self.processes.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, preexec_fn=enter))  # noqa: PLW1509

    @property
    def lives(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    @property
    def has_ended(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / "cgroup.freeze").write_text("0")
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        for _ in range(100):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.05)


@dataclass
class Seen:
    """What was seen of a case."""

    lowest: int = sys.maxsize
    crossed: float | None = None
    recovered: float | None = None
    still: dict[str, float] = field(default_factory=dict)
    """Seconds for which a cgroup stood still, by its name."""
    over: bool = False

    def watch(self, limits: Limits, jobs: dict[str, Job]) -> None:
        last = time.monotonic()
        while not self.over:
            available, now = meminfo(), time.monotonic()
            self.lowest = min(self.lowest, available)
            if available < limits.term_below:
                self.crossed, self.recovered = self.crossed or now, None
            elif self.crossed and not self.recovered:
                self.recovered = now
            for name, job in jobs.items():
                if is_frozen(job.path):
                    self.still[name] = self.still.get(name, 0.0) + now - last
            last = now
            time.sleep(0.001)


def is_frozen(path: Path) -> bool:
    try:
        with open(path / "cgroup.events", "rb") as file:  # noqa: PTH123 - many times a second
            return b"frozen 1" in file.read()
    except OSError:
        return False


@contextlib.contextmanager
def jobs_of(root: Path, names: list[str]) -> Iterator[dict[str, Job]]:
    jobs = {name: Job(root, number) for number, name in enumerate(names, 1)}
    try:
        yield jobs
    finally:
        for job in jobs.values():
            job.remove()


def run(case: Case, limits: Limits, root: Path, code: Path, folder: Path, settle: float) -> dict[str, object]:
    """Runs a case to its end: memory is back for two seconds, or the time is over."""
    names = ["innocent", "taker", *(["second"] if case.second else [])]
    with jobs_of(root, names) as jobs, watchdog(limits, folder, code=code, cgroup_root=root):
        jobs["innocent"].start("--limit", str(case.innocent), "--threads", "4")
        time.sleep(settle)
        seen = Seen()
        watcher = threading.Thread(target=seen.watch, args=(limits, jobs), daemon=True)
        watcher.start()
        words = ["--rate", str(case.rate / case.processes), "--threads", str(case.threads), "--kind", case.kind]
        for _ in range(case.processes):
            jobs["taker"].start(*words, *([] if case.obeys else ["--ignore-term"]))
        if case.second:
            jobs["second"].start("--rate", str(case.second), "--threads", "1", "--ignore-term")
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            if seen.recovered and jobs["taker"].has_ended and time.monotonic() - seen.recovered > 2:
                break
            if jobs["taker"].has_ended and not seen.crossed:
                time.sleep(2)
                break
            time.sleep(0.05)
        seen.over = True
        watcher.join()
        return {
            "case": case.name,
            "lowest": round(seen.lowest / limits.term_below, 2),
            "taker_ended": jobs["taker"].has_ended,
            "innocent_lives": jobs["innocent"].lives,
            "recovery_s": round(seen.recovered - seen.crossed, 2) if seen.recovered and seen.crossed else None,
            "still_s": {name: round(seconds, 2) for name, seconds in seen.still.items()},
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/sys/fs/cgroup"), help="cgroup v2; default: %(default)s")
    parser.add_argument("--term-below", type=float, default=16.0, metavar="GIB")
    parser.add_argument("--kill-below", type=float, default=8.0, metavar="GIB")
    parser.add_argument("--code", type=Path, action="append", default=[], help="another files/host to run as well")
    parser.add_argument("--only", default="", metavar="WORDS", help="cases whose name holds this")
    parser.add_argument("--settle", type=float, default=15.0, metavar="SECONDS")
    parser.add_argument("--scale", type=float, default=1.0, help="of the innocents' sizes, for a smaller machine")
    options = parser.parse_args()
    limits = Limits(int(options.term_below * GIB), int(options.kill_below * GIB))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    total = meminfo("MemTotal") / GIB
    print(
        json.dumps({"cores": os.cpu_count(), "total_gib": round(total, 1), "available_gib": round(meminfo() / GIB, 1)})
    )
    for case in CASES:
        if options.only not in case.name:
            continue
        if case.kind == "pinned" and not shutil.which("nvidia-smi"):
            continue
        scaled = replace(case, innocent=case.innocent * options.scale)
        for code in (HOST, *options.code):
            with tempfile.TemporaryDirectory(prefix="sparkfleet-bench-") as directory:
                row = run(scaled, limits, options.root, code, Path(directory), options.settle)
            print(json.dumps({"code": "this" if code == HOST else str(code), **row}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
