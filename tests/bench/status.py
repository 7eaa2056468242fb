"""What looking at a fleet costs: `python -m tests.bench.status --hosts 200 --seconds 60`

The controller: `sparkfleet watch` on a pseudoterminal and `watch --web` with one page open, over simulated hosts
(tests/bench/ssh_hosts.py) that say a line a second: processor time of it and of its ssh processes, and their memory:
the sum of the proportional set sizes (PSS), in which pages that processes share count once.

The host: the real reader on this machine, on its own cgroups, and on 100 and 1000 in files.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path

from sparkfleet.status import program
from tests.bench.process_tree import descendants
from tests.bench.simulated import SimulatedFleet

TICK = os.sysconf("SC_CLK_TCK")
MIB = 2**20
WATCH = (sys.executable, "-m", "sparkfleet.cli", "watch")


@dataclass(frozen=True)
class Cost:
    """Of a process with all below it. `cores`: processor seconds a second; bytes."""

    cores: float
    own: float
    """Of the process itself."""
    pss: int
    own_pss: int
    processes: int

    def __str__(self) -> str:
        return (
            f"{self.cores:.3f} cores ({self.own:.3f} itself), {self.pss / MIB:.0f} MiB "
            f"({self.own_pss / MIB:.0f} itself), {self.processes} processes"
        )


def ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def measured(pid: int, seconds: float) -> Cost:
    """The cost of a process and its descendants over a time in which none of them ends."""
    tree = [pid, *descendants(pid)]
    before = {one: ticks(one) for one in tree}
    began = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    spent = {one: (ticks(one) - before[one]) / TICK / passed for one in tree}
    return Cost(sum(spent.values()), spent[pid], sum(map(pss, tree)), pss(pid), len(tree))


def drained(descriptor: int) -> None:
    """Reads what is written, so that nobody waits."""
    with contextlib.suppress(OSError):
        while os.read(descriptor, 1 << 16):
            pass


@contextlib.contextmanager
def terminal(fleet: Path) -> Iterator[int]:
    """`watch` on a terminal of 50 lines; its process number."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 180, 0, 0))
    words = [*WATCH, "--fleet", str(fleet)]
    process = subprocess.Popen(words, stdin=side, stdout=side, stderr=side, start_new_session=True)
    threading.Thread(target=drained, args=(main,), daemon=True).start()
    try:
        yield process.pid
    finally:
        os.write(main, b"q")
        process.wait(30)


@contextlib.contextmanager
def web(fleet: Path) -> Iterator[int]:
    """`watch --web` with a page that listens; its process number."""
    process = subprocess.Popen(
        [*WATCH, "--web", "--port", "0", "--fleet", str(fleet)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    address = process.stdout.readline().split()[1]
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    opener.open(address).read()
    events = opener.open(re.sub(r"/\?.*", "/events", address))

    def listen() -> None:
        with contextlib.suppress(OSError, ValueError):
            while events.read1(1 << 16):
                pass

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield process.pid
    finally:
        process.send_signal(2)
        process.wait(30)


def settled(pid: int, hosts: int) -> None:
    """Waits until each host has its ssh, and all of them some time to say something."""
    until = time.monotonic() + 180
    while len(descendants(pid)) < hosts and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(20)


def tree_of(folder: Path, cgroups: int) -> None:
    """Cgroups of services, as files."""
    stat = "".join(f"{name} 4096\n" for name in ("anon", "shmem", "kernel_stack", "pagetables", "percpu", "sock"))
    for at in range(cgroups):
        one = folder / f"cgroups/system.slice/service{at}.service"
        one.mkdir(parents=True)
        (one / "memory.stat").write_text(stat + "other 1\n" * 40)


def reader(seconds: float, cgroups: int | None) -> float:
    """The share of a core that the reader takes, its start left out. `cgroups`: None for this machine's own."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["sh", "-c", program.command()]
        given = program.source()
        if cgroups is not None:
            tree_of(Path(folder), cgroups)
            code = (
                "import sys; from pathlib import Path; from sparkhost.status import main, reader; "
                f"reader.HERE = reader.HERE._replace(cgroups=Path({folder!r}) / 'cgroups'); "
                "reader.Reader.__init__.__defaults__ = (reader.HERE, *reader.Reader.__init__.__defaults__[1:]); "
                "main.main()"
            )
            words, given = [sys.executable, "-c", code], b""
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin
        assert process.stdout
        process.stdin.write(given)
        process.stdin.flush()
        process.stdout.readline()
        threading.Thread(target=drained, args=(process.stdout.fileno(),), daemon=True).start()
        time.sleep(2)
        cost = measured(process.pid, seconds)
        process.stdin.close()
        process.wait(10)
        print(
            f"reader beside {'its own' if cgroups is None else cgroups} cgroups: {100 * cost.cores:.2f} % of a core",
            cost,
        )
        return cost.cores


def main() -> None:
    parser = argparse.ArgumentParser(description="What looking at a fleet costs")
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--port", type=int, default=23500, help="first port of the simulated hosts")
    parser.add_argument("--only", choices=["controller", "reader"])
    options = parser.parse_args()
    if options.only != "reader":
        with (
            tempfile.TemporaryDirectory() as folder,
            SimulatedFleet(Path(folder), options.hosts, first_port=options.port) as fleet,
        ):
            path = fleet.fleet_file({})
            for name, way in (("watch", terminal), ("watch --web", web)):
                with way(path) as pid:
                    settled(pid, options.hosts)
                    print(f"{name}, {options.hosts} hosts: {measured(pid, options.seconds)}", flush=True)
    if options.only != "controller":
        for cgroups in (None, 100, 1000):
            reader(options.seconds, cgroups)


if __name__ == "__main__":
    main()
