"""Writes docs/job-saved.svg: a job that the watchdog ends, as its user sees it. `python -m tests.job_picture`

The host must have all measures (`make demo` leaves it so). What is shown is what the host printed.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.lab import Host, Lab, LabError

PICTURE = Path(__file__).parents[1] / "docs" / "job-saved.svg"
MOST_BYTES = 60_000
# Somebody else's files in memory leave less than a job may have: its own cap does not save the host.
OTHERS = "fallocate -l {size}M /dev/shm/somebody-elses"
TRAINING = """\
import time
batch = [bytearray(1 << 20) for _ in range(590)]
time.sleep(10**6)
"""
JOB = "spark-run --no-preflight --name train -- python3 train.py"
LEFT = 620
"""MiB that are left available beside somebody else's."""


def played(host: Host) -> list[tuple[str, str]]:
    """What was typed, and what came."""
    available = int(host.run("awk '$1 == \"MemAvailable:\" {print int($2 / 1024)}' /proc/meminfo").stdout)
    host.sudo(f"mount -o remount,size=100% /dev/shm; {OTHERS.format(size=max(1, available - LEFT))}")
    host.run("cat > train.py", user="alice", input=TRAINING)
    try:
        job = host.run(JOB, user="alice", fresh=True, check=False, timeout=120)
        why = host.run("spark-why", user="alice", fresh=True)
        ssh = host.run("uptime -p", user="alice", fresh=True)
    finally:
        host.sudo("rm -f /dev/shm/somebody-elses")
    if "by the watchdog" not in job.stderr:
        raise LabError(f"the watchdog did not end the job: rc {job.rc}: {job.stderr}")
    return [(JOB, job.stderr), ("spark-why", why.stdout), ("uptime -p", ssh.stdout)]


def drawn(steps: list[tuple[str, str]], name: str) -> str:
    """A terminal with these steps, as SVG."""
    console = Console(record=True, width=118, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    for typed, came in steps:
        console.print(Text.assemble((f"alice@{name}:~$ ", "bold green"), (typed, "bold")))
        console.print(Text(came.rstrip("\n")))
    picture = console.export_svg(title="a job that the memory watchdog has ended", clear=False)
    # Fonts of other sites: the viewer's own monospace is as good, and nobody is asked for anything.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def main() -> int:
    """Takes the picture. Returns 1 where it is too large for a repository."""
    host = Lab().host("spark1")
    picture = drawn(played(host), host.name)
    if len(picture) > MOST_BYTES:
        print(f"the picture has {len(picture)} bytes, expected at most {MOST_BYTES}", file=sys.stderr)
        return 1
    PICTURE.write_text(picture)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"picture: {error}")
