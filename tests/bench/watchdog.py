"""The watchdog beside earlyoom and a shell script, filling real memory. `sudo python3 tests/bench/watchdog.py`

Standard library only: it is meant for a large machine with nothing else on it, without systemd or with it. It fills
nearly all memory again and again. All figures come from one run. What it prints:

- lowest MemAvailable as a share of `term_below`; milliseconds from crossing it to the job's SIGTERM; seconds from
  crossing to recovery; whether the right one was ended (a smaller bystander must live), by guard, fill rate, and job;
- CPU use far from the limit and near it, resident memory, growth over many looks.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import mmap
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a script, where nothing is installed

from tests.bench.crossings import crossings
from tests.bench.guards import GIB, HOST, NAME, Limits, cpu_of, earlyoom, ended, meminfo, rss_of, watchdog

HOG = Path(__file__).with_name("memory_hog.py")
PR_SET_NAME = 15
PARTS = ("rss", "p99", "fill", "polls")
HELD = "SPARKFLEET_BENCH_HELD"

# A rendition of the script that people pass around: one process is watched, looked at once a second.
SCRIPT = """\
while :; do
    available=$(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo)
    if [ "$available" -lt "$1" ]; then
        kill -TERM "$2"
        sleep 5
        kill -KILL "$2" 2>/dev/null
        exit
    fi
    sleep 1
done
"""
LONGEST = 120.0
"""Seconds for one case: the slowest fill of the largest machine, and recovery."""


@dataclass
class Case:
    """One fill."""

    guard: str
    rate: float
    obeys: bool
    lowest: int
    """The least MemAvailable that was seen, in bytes."""
    latency: float | None
    """Seconds from crossing `term_below` to the job's SIGTERM; None where it got none."""
    recovery: float | None
    """Seconds from crossing until MemAvailable was back above; None: not within LONGEST."""
    bystander_lives: bool


def fill(guard: str, limits: Limits, rate: float, obeys: bool, folder: Path, program: str | None) -> Case:
    """Lets a job fill memory under a guard."""
    hog = [sys.executable, str(HOG), "--rate", str(rate), *([] if obeys else ["--ignore-term"])]
    with contextlib.ExitStack() as stack:
        bystander = stack.enter_context(
            ended(subprocess.Popen([sys.executable, str(HOG), "--limit", "2", "--threads", "2"]))
        )
        if guard == "watchdog":
            stack.enter_context(watchdog(limits, folder))
        elif guard == "earlyoom" and program:
            stack.enter_context(earlyoom(limits, program))
        job = stack.enter_context(ended(subprocess.Popen(hog, stdout=subprocess.PIPE)))
        if guard == "script":
            words = ["sh", "-c", SCRIPT, "sh", str(limits.term_below // 1024), str(job.pid)]
            stack.enter_context(ended(subprocess.Popen(words)))
        lowest, crossed, recovered = sample(limits, job)
        if job.poll() is None:
            job.kill()
        said = (job.communicate()[0] or b"").split()
        lives = bystander.poll() is None
        times = [float(said[index + 1]) for index, word in enumerate(said[:-1]) if word == b"TERM"]
        latency = times[0] - crossed if times and crossed else None
        recovery = recovered - crossed if recovered and crossed else None
        return Case(guard, rate, obeys, lowest, latency, recovery, lives)


def sample(limits: Limits, job: subprocess.Popen[bytes]) -> tuple[int, float | None, float | None]:
    """Lowest MemAvailable, when `term_below` was crossed, and when it was back for good."""
    lowest, crossed, recovered = sys.maxsize, None, None
    until = time.monotonic() + LONGEST
    while (now := time.monotonic()) < until:
        available = meminfo()
        lowest = min(lowest, available)
        if available < limits.term_below:
            crossed = crossed or now
            recovered = None
        elif crossed and job.poll() is not None:
            recovered = recovered or now
            if now - recovered > 0.5:
                break
        elif job.poll() is not None and not crossed:
            time.sleep(1)  # ended before it crossed: by a guess of the guard's
            break
        time.sleep(0.001)
    return lowest, crossed, recovered


def at_rest(limits: Limits, folder: Path, seconds: float) -> tuple[float, int]:
    """Share of one core and resident bytes of the daemon over some time."""
    with watchdog(limits, folder) as process:
        began, used = time.monotonic(), cpu_of(process.pid)
        time.sleep(seconds)
        return (cpu_of(process.pid) - used) / (time.monotonic() - began), rss_of(process.pid)


def growth(looks: int, folder: Path) -> tuple[float, int]:
    """Microseconds a look, and bytes by which the resident memory grew over so many of them after the first tenth."""
    sys.path.insert(0, str(HOST))
    from sparkhost.watchdog.cli import Nobody
    from sparkhost.watchdog.config import Config
    from sparkhost.watchdog.loop import Watchdog
    from sparkhost.watchdog.model import Policy

    daemon = Watchdog(Config(Policy(term_below=GIB // 2, kill_below=GIB // 4)), Nobody(), gpu_file=folder / "none")
    for _ in range(looks // 10):
        daemon.step()
    before, began = rss_of(os.getpid()), time.monotonic()
    for _ in range(looks):
        daemon.step()
    return (time.monotonic() - began) / looks * 1e6, rss_of(os.getpid()) - before


def rest(limits: Limits, folder: Path) -> None:
    """Prints what the daemon costs far from the limit and 1 GiB from it."""
    share, resident = at_rest(limits, folder, 30)
    print(f"far from the limit: {100 * share:.3f} % of one core, RSS {resident / 2**20:.1f} MiB", flush=True)
    near = (meminfo() - limits.term_below) / GIB - 1
    with ended(subprocess.Popen([sys.executable, str(HOG), "--limit", f"{near}"])):
        until = time.monotonic() + LONGEST
        while meminfo() > limits.term_below + 1.3 * GIB and time.monotonic() < until:
            time.sleep(0.1)
        share, _ = at_rest(limits, folder, 15)
    print(f"1 GiB from the limit: {100 * share:.2f} % of one core", flush=True)


class Ballast:
    """Memory that is held so that less is left to fill, by the parent of the program that measures: the watchdog leaves
    alone what it descends from. earlyoom does not; another process then holds it anew, and what measures lives on."""

    def __init__(self, gib: float) -> None:
        self.gib = gib
        self.parent = os.getppid()
        self.process: subprocess.Popen[bytes] | None = None

    def lives(self) -> bool:
        """Whether somebody holds it."""
        return not self.gib or (self.process.poll() is None if self.process else os.getppid() == self.parent)

    def hold(self) -> None:
        """Waits until it is held."""
        if self.lives():
            return
        before = meminfo()
        self.process = subprocess.Popen([sys.executable, str(HOG), "--limit", str(self.gib), "--score", "0"])
        until = time.monotonic() + LONGEST
        while before - meminfo() < 0.97 * self.gib * GIB and time.monotonic() < until:
            time.sleep(0.1)

    def close(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


def holding(gib: float) -> int:
    """Runs this program anew as a child of one that holds memory, and returns the child's exit code."""
    ballast = mmap.mmap(-1, int(gib * GIB))
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(ballast)), 1, len(ballast))
    return subprocess.run([sys.executable, *sys.argv], env={**os.environ, HELD: "1"}, check=False).returncode


def fills(limits: Limits, folder: Path, options: argparse.Namespace, ballast: Ballast) -> None:
    """Fills under every guard, and prints each."""
    done: list[Case] = []
    # In turn, so that what changes on the machine changes for all; earlyoom apart and last, since it ends the ballast.
    for group in (["watchdog", "script"], ["earlyoom"] if options.earlyoom else []):
        for rate in options.rates:
            for obeys in (True, False):
                for guard in group * options.rounds:
                    ballast.hold()
                    done.append(fill(guard, limits, rate, obeys, folder, options.earlyoom))
                    show(done[-1:], limits)
                    if not ballast.lives():
                        print(f"{guard} has ended the ballast as well", flush=True)
    if options.rounds > 1:
        print("all rounds together:")
        for key in dict.fromkeys((case.guard, case.rate, case.obeys) for case in done):
            show([case for case in done if (case.guard, case.rate, case.obeys) == key], limits)


def parts(text: str) -> list[str]:
    """The parts that a list such as `p99,polls` names. Raises ArgumentTypeError."""
    chosen = text.split(",")
    if unknown := [part for part in chosen if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]!r}: expected {', '.join(PARTS)}")
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=parts, default=list(PARTS), metavar="PART,PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--term-below", type=float, default=16.0, metavar="GIB")
    parser.add_argument("--kill-below", type=float, default=8.0, metavar="GIB")
    parser.add_argument("--rates", type=float, nargs="*", default=[1.0, 4.0, 0.0], help="GiB/s; 0: as fast as it goes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crossings", type=int, default=120, help="for p99, in peace and in trouble each")
    parser.add_argument("--looks", type=int, default=1_000_000)
    parser.add_argument("--ballast", type=float, default=0.0, metavar="GIB", help="held beside all, to save time")
    parser.add_argument("--earlyoom", default=shutil.which("earlyoom"), help="its program, where there is one")
    options = parser.parse_args()
    limits = Limits(int(options.term_below * GIB), int(options.kill_below * GIB))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    ctypes.CDLL(None).prctl(PR_SET_NAME, NAME.encode(), 0, 0, 0)  # for earlyoom's --avoid
    if options.ballast and HELD not in os.environ:
        return holding(options.ballast)
    ballast = Ballast(options.ballast)
    total = meminfo("MemTotal") / GIB
    print(
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, MemTotal {total:.1f} GiB,"
        f" {meminfo() / GIB:.1f} GiB available"
    )
    with contextlib.closing(ballast), tempfile.TemporaryDirectory(prefix="sparkfleet-bench-") as directory:
        folder = Path(directory)
        if "rss" in options.only:
            rest(limits, folder)
        if "p99" in options.only:
            crossings(folder, options.crossings)
        if "fill" in options.only:
            fills(limits, folder, options, ballast)
        if "polls" in options.only:
            each, grown = growth(options.looks, folder)
            print(f"{options.looks} looks: {each:.0f} us each, grown by {grown} bytes", flush=True)
    return 0


def show(cases: list[Case], limits: Limits) -> None:
    first = cases[0]
    lows = sorted(case.lowest / limits.term_below for case in cases)
    latencies = [1000 * case.latency for case in cases if case.latency is not None]
    recoveries = [case.recovery for case in cases if case.recovery is not None]
    speed = f"{first.rate:g} GiB/s" if first.rate else "as fast as it goes"
    told = f"to TERM {max(latencies):.1f} ms at most" if latencies else "no TERM"
    back = f"recovery {statistics.median(recoveries):.1f} s" if recoveries else "no recovery"
    lived = f"bystander lived {sum(case.bystander_lives for case in cases)}/{len(cases)}"
    print(
        f"{first.guard:9} {speed:18} {'obeys TERM' if first.obeys else 'ignores TERM':13}"
        f" lowest {min(lows):.2f} (median {statistics.median(lows):.2f}) x term_below; {told}; {back}; {lived}",
        flush=True,
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    sys.exit(main())
