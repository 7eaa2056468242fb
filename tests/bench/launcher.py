"""What starting a job costs: `python -m tests.bench.launcher`. spark-run against systemd-run, in turn, on one lab host.

The host must have the measure training_slice, with alice in its group (`make demo` leaves it so). Aim: 1.5 times.
"""

from __future__ import annotations

import statistics
import sys

from rich.console import Console
from rich.table import Table

from tests.lab import Lab, LabError

ROUNDS = 15
AIM = 1.5
# All from root's shell; setpriv(1) becomes the user without a fork.
START = "HOME=/home/alice setpriv --reuid=alice --regid=alice --init-groups spark-run"
OURS = f"{START} --no-preflight --quiet -- true"
CHECKED = f"{START} --quiet -- true"
PYTHON = "python3 -IS -c pass"
THEIRS = "systemd-run --quiet --wait --pipe --collect --slice=training.slice --uid=alice true"
STARTS = 2
"""Of Python, one after the other, that a job cannot do without: the launcher, and the stub once it has asked."""
ROWS = ("spark-run --no-preflight -- true", "systemd-run --wait true", "spark-run -- true", "python3 -IS -c pass")
# All in one shell on the host: a connection costs far more than either.
LOOP = f"""
set -eu
now() {{ date +%s%N; }}
for round in $(seq {ROUNDS}); do
    a=$(now); {OURS}; b=$(now); {THEIRS}; c=$(now); {CHECKED}; d=$(now); {PYTHON}; e=$(now)
    echo "$((b - a)) $((c - b)) $((d - c)) $((e - d))"
done
"""


def main() -> int:
    host = Lab().host("spark1")
    pairs = [
        tuple(int(word) / 1e6 for word in line.split()) for line in host.sudo(LOOP, timeout=600).stdout.splitlines()
    ]
    table = Table("what", "median, ms", "least, ms")
    for index, name in enumerate(ROWS):
        values = [pair[index] for pair in pairs]
        table.add_row(name, f"{statistics.median(values):.0f}", f"{min(values):.0f}")
    ratio = statistics.median(ours / theirs for ours, theirs, _, _ in pairs)
    least = statistics.median((theirs + STARTS * python) / theirs for _, theirs, _, python in pairs)
    table.add_row("the first against the second", f"{ratio:.2f}", "")
    table.add_row(f"the second and {STARTS} starts of Python against the second", f"{least:.2f}", "")
    Console().print(table)
    return 0 if ratio <= AIM else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"bench: {error}")
