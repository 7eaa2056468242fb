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
# Both from root's shell; setpriv(1) becomes the user without a fork.
OURS = "HOME=/home/alice setpriv --reuid=alice --regid=alice --init-groups spark-run --no-preflight --quiet -- true"
THEIRS = "systemd-run --quiet --wait --pipe --collect --slice=training.slice --uid=alice true"
# Both in one shell on the host: a connection costs far more than either.
LOOP = f"""
set -eu
now() {{ date +%s%N; }}
for round in $(seq {ROUNDS}); do
    a=$(now); {OURS}; b=$(now); {THEIRS}; c=$(now)
    echo "$((b - a)) $((c - b))"
done
"""


def main() -> int:
    host = Lab().host("spark1")
    pairs = [
        tuple(int(word) / 1e6 for word in line.split()) for line in host.sudo(LOOP, timeout=600).stdout.splitlines()
    ]
    table = Table("what", "median, ms", "least, ms")
    for index, name in enumerate(("spark-run -- true", "systemd-run --wait true")):
        values = [pair[index] for pair in pairs]
        table.add_row(name, f"{statistics.median(values):.0f}", f"{min(values):.0f}")
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    table.add_row("ratio", f"{ratio:.2f}", "")
    Console().print(table)
    return 0 if ratio <= AIM else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"bench: {error}")
