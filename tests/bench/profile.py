"""What a look every few seconds sees of a peak, beside spark-profile. `python -m tests.bench.profile`

One real run of the recipe `allocate`, with three peaks of a fifth of a second. The published script looks every 2
seconds, and its page at `free -h` every 5: what they would have seen is taken from the same run, for every moment at
which they could have begun to look. A run of many steps gives a slow look more chances than this one does.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from sparkhost.base.units import MIB
from sparkhost.tools.profile.sample import Memory, family, held

RECIPE = Path(__file__).resolve().parents[2] / "files" / "tools" / "recipes" / "allocate.py"
BATCH, SAMPLE = 8, 64
BASE = 32
RATE = 50.0


def trace() -> list[tuple[float, int]]:
    """Seconds from the start, and bytes that the run held: as often as spark-profile looks."""
    found = []
    memory = Memory()
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(RECIPE), str(BATCH), str(SAMPLE), str(BASE)], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        memory.read("MemAvailable")
        found.append((time.monotonic() - begun, held(family(process.pid))))
        time.sleep(1 / RATE)
    memory.close()
    return found


def peaks(points: list[tuple[float, int]], every: float) -> list[int]:
    """What a look every so often sees at most, by when it begins: 100 beginnings within the first interval."""
    found = []
    for number in range(100):
        due, most = every * number / 100, 0
        for at, size in points:
            if at >= due:
                most, due = max(most, size), due + every
        found.append(most)
    return found


def main() -> None:
    points = trace()
    true = (BASE + BATCH * SAMPLE) * MIB
    print(f"run of {points[-1][0]:.1f} s, {len(points)} looks; the program holds {true // MIB} MiB at its peaks\n")
    print("| looks | median of what is seen | least | misses a tenth or more |")
    print("|---|---|---|---|")
    own = max(size for _, size in points)
    print(f"| {RATE:g} a second | {own / true:.0%} | {own / true:.0%} | 0 % |")
    for every in (0.5, 1.0, 2.0, 5.0):
        seen = [size / true for size in peaks(points, every)]
        missed = sum(share < 0.9 for share in seen) / len(seen)
        print(f"| every {every:g} s | {statistics.median(seen):.0%} | {min(seen):.0%} | {missed:.0%} |")


if __name__ == "__main__":
    main()
