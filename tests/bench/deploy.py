"""What a deploy costs: `make bench`. Prints seconds, SSH commands, and ratios measured side by side in one run.

The floor is pyinfra itself with one command per host (`pyinfra inventory.py exec`), on the same hosts and in turn with
ours, so that a busy machine slows both. Emulated hosts are slow: ratios carry over to real ones, seconds do not.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.integration.deploying import PYINFRA, ROOT, deploy, environment, fleet
from tests.lab import Host, Lab, LabError

ROUNDS = 3


def seconds(lab: Lab, fleet_file: Path, *arguments: str) -> float:
    """Wall time of one pyinfra run, which must succeed."""
    started = time.monotonic()
    subprocess.run(
        [PYINFRA, "-y", "inventory.py", *arguments],
        cwd=ROOT,
        env=environment(lab, fleet_file),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - started


def commands(lab: Lab, fleet_file: Path, host: Host) -> int:
    """SSH commands that a converged rerun sends to a host, as pyinfra's own debug log counts them."""
    output = deploy(lab, fleet_file, "--debug").output
    return output.count(f"Running command on {host.name}: ")


def restore(host: Host) -> float:
    """Seconds until a saved host answers over SSH again."""
    started = time.monotonic()
    host.clean()
    return time.monotonic() - started


def main() -> int:
    lab = Lab()
    hosts = [lab.host("spark1"), lab.host("spark2")]
    console = Console()
    for host in hosts:
        host.clean()  # builds and boots what is not there yet, so that the next one is a restore
    table = Table("what", "1 host", "2 hosts")
    restored = [restore(host) for host in hosts]
    table.add_row("restore a booted host, s", f"{restored[0]:.1f}", f"{restored[0]:.1f} + {restored[1]:.1f}")
    rows: dict[str, list[str]] = {"first deploy, s": [], "converged rerun, s": [], "pyinfra with one command, s": []}
    rows |= {"rerun / pyinfra with one command": [], "SSH commands per host in a rerun": []}
    with tempfile.TemporaryDirectory() as directory:
        for count in (1, 2):
            for host in hosts[:count]:
                host.clean()
                host.sudo("mkdir -p /usr/local/cuda/bin /usr/local/cuda/lib64")
            path = fleet(lab, hosts[:count], Path(directory) / f"{count}.yaml")
            rows["first deploy, s"].append(f"{seconds(lab, path, 'deploy.py'):.1f}")
            pairs = [(seconds(lab, path, "deploy.py"), seconds(lab, path, "exec", "--", "true")) for _ in range(ROUNDS)]
            rows["converged rerun, s"].append(f"{statistics.median(ours for ours, _ in pairs):.1f}")
            rows["pyinfra with one command, s"].append(f"{statistics.median(floor for _, floor in pairs):.1f}")
            ratio = statistics.median(ours / floor for ours, floor in pairs)
            rows["rerun / pyinfra with one command"].append(f"{ratio:.2f}")
            sent = [str(commands(lab, path, host)) for host in hosts[:count]]
            rows["SSH commands per host in a rerun"].append(", ".join(sent))
    for name, values in rows.items():
        table.add_row(name, *values)
    console.print(table)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"bench: {error}")
