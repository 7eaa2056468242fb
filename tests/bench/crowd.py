"""The watchdog among very many processes and cgroups. `sudo nice python3 tests/bench/crowd.py`

Standard library only. It runs in a PID namespace of its own, in which it sees, and could end, only what it has started
itself; no memory is filled: the thresholds are set above what is available. `--host DIR` measures another version's
`files/host` in the same way. What it prints, in milliseconds, as median, p99 and the largest:

- from a look to the list of candidates and to the end of a hog of 300 MiB, its memory given back, among so many
  real sleepers, in logins of 1,000 each with its own cgroup and charge where cgroup v2 has the memory controller;
- how long it takes until the watchdog is ready, and the longest silence towards systemd;
- the same list for a directory that stands for /proc, with 50,000 processes (a file system's files, not the kernel's);
- who is in a unit with so many empty cgroups below it, and with 1,500 levels.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a script, where nothing is installed

from tests.bench.guards import GIB, HOST, meminfo, rss_of

INSIDE = "SPARKFLEET_BENCH_INSIDE"
# It ends with its parent (PR_SET_PDEATHSIG, prctl(2)).
HOG = (
    "import ctypes, os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); ctypes.CDLL(None).prctl(1, 9);"
    "kept = bytearray(b'x') * (300 << 20); print(flush=True); time.sleep(600)"
)
SESSION, FIRST_USER = 1_000, 20_001
LEADER = "echo $$ > $2; i=0; while [ $i -lt $1 ]; do sleep 86400 & i=$((i+1)); done; echo; wait"
STAT = "5 (sleep) S 1 5 5 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 {pages} 0\n"


def show(what: str, seconds: list[float]) -> None:
    """Prints the median, p99 and the largest of some times."""
    ordered = sorted(seconds)
    if ordered:
        middle, high = ordered[len(ordered) // 2], ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)]
        figures = f"{1000 * middle:.1f}, p99 {1000 * high:.1f}, at most {1000 * ordered[-1]:.1f} ms"
        print(f"{what}: {figures} ({len(ordered)} times)", flush=True)


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def cgroup_root() -> Path | None:
    """Where the cgroup v2 tree is."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)


@contextlib.contextmanager
def login(user: int) -> Iterator[str]:
    """The `cgroup.procs` of a session as logind makes them, with its charge; /dev/null where that cannot be."""
    root = cgroup_root()
    session = root and root / "user.slice" / f"user-{user}.slice" / f"session-{user}.scope"
    try:
        if root is None or session is None or "memory" not in (root / "cgroup.controllers").read_text().split():
            yield "/dev/null"
            return
        session.mkdir(parents=True, exist_ok=True)
        for path in (root, root / "user.slice", session.parent):
            (path / "cgroup.subtree_control").write_text("+memory")
        yield str(session / "cgroup.procs")
    finally:
        if session is not None and session.is_dir():
            for path in (session, session.parent):
                with contextlib.suppress(OSError):  # whoever was killed is gone a moment later
                    path.rmdir()


@contextlib.contextmanager
def sleepers(number: int) -> Iterator[int]:
    """As many processes as the machine lets start, in logins of 1,000; yields how many there are.

    Not children of this process: the watchdog has no crowd of its own, and takes none of it for one unit of work.
    """
    leaders: list[subprocess.Popen[bytes]] = []
    before = count_processes()
    with contextlib.ExitStack() as logins:
        try:
            for place, first in enumerate(range(0, number, SESSION)):
                procs = logins.enter_context(login(FIRST_USER + place))
                words = ["sh", "-c", LEADER, "sh", str(min(SESSION, number - first)), procs]
                leaders.append(subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True))
            for leader in leaders:
                assert leader.stdout is not None
                leader.stdout.readline()
            yield count_processes() - before
        finally:
            for leader in leaders:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(leader.pid, signal.SIGKILL)
                leader.wait()


def count_processes() -> int:
    return sum(name.isdigit() for name in os.listdir("/proc"))  # noqa: PTH208


class Systemd:
    """Hears signs of life in a process of its own, and knows the longest silence."""

    def __init__(self, folder: Path) -> None:
        address = str(folder / "notify")
        ears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ears.bind(address)
        os.environ["NOTIFY_SOCKET"] = address
        self._mouth = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._mouth.connect(address)
        self._result, theirs = os.pipe()
        self._child = os.fork()
        if not self._child:
            last, longest = time.monotonic(), 0.0
            while True:
                said = ears.recv(4096)
                now = time.monotonic()
                longest, last = max(longest, now - last), now
                if said == b"END":
                    os.write(theirs, str(longest).encode())
                    os._exit(0)
        ears.close()
        os.close(theirs)
        self.child = self._child

    def silence(self) -> float:
        """The longest time between two signs, in seconds. Afterwards nobody listens."""
        self._mouth.send(b"END")
        longest = float(os.read(self._result, 100))
        os.waitpid(self._child, 0)
        return longest


class Told:
    """Keeps what would be told."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def tell(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    def tend(self) -> None:
        """Nobody to tend."""


class Witness:
    """A process of its own that says when another one has ended, by the clock of the looks."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self.child = os.fork()
        if not self.child:
            self._ours.close()
            while processes := socket.recv_fds(theirs, 1, 1)[1]:
                select.select(processes, [], [])
                theirs.send(str(time.monotonic()).encode())
                os.close(processes[0])
            os._exit(0)
        theirs.close()

    def watch(self, pid: int) -> None:
        """Begins to wait for the end of a process, which must be waited for with `ended`."""
        process = os.pidfd_open(pid)
        socket.send_fds(self._ours, [b"x"], [process])
        os.close(process)

    def ended(self) -> float:
        """When it ended."""
        return float(self._ours.recv(100))

    def close(self) -> None:
        """Lets it go."""
        self._ours.close()
        os.waitpid(self.child, 0)


def crossings(folder: Path, rounds: int) -> None:
    """Times the start, and then again and again the way to the signal for a hog."""
    from sparkhost.watchdog.config import Config
    from sparkhost.watchdog.loop import Watchdog
    from sparkhost.watchdog.model import Policy
    from sparkhost.watchdog.rehearse import rehearse

    systemd, witness, told = Systemd(folder), Witness(), Told()
    enough = Config(Policy(term_below=2 << 20, kill_below=1 << 20))
    watchdog = Watchdog(enough, told, gpu_file=folder / "none", never=[systemd.child, witness.child])
    print(f"ready after {timed(lambda: rehearse(watchdog)):.2f} s", flush=True)
    lists, signals, missed = [], [], 0
    for _ in range(rounds):
        with (
            login(FIRST_USER - 1) as procs,
            subprocess.Popen([sys.executable, "-c", HOG, procs], stdout=subprocess.PIPE, start_new_session=True) as hog,
        ):
            assert hog.stdout is not None
            hog.stdout.readline()
            witness.watch(hog.pid)
            watchdog.config = enough
            for _ in range(3):  # calm: it knows of no victim any more
                time.sleep(watchdog.step())
            lists.append(timed(watchdog.list_candidates))
            told.messages.clear()
            little = meminfo() + (200 << 20)  # the hog's end is enough
            watchdog.config = Config(Policy(term_below=little + (50 << 20), kill_below=little, recovery_wait=0.5))
            watchdog.step()
            looked = [m["look"]["time"] for m in told.messages if m.get("event") in ("term", "kill")]
            try:
                hog.wait(5)
            except subprocess.TimeoutExpired:
                missed += 1
                victims = [m["victim"]["name"] for m in told.messages if "victim" in m]
                print(f"ended instead of the hog: {'; '.join(victims)[:300] or 'nobody'}", flush=True)
                hog.kill()
            ended = witness.ended()
            if looked:
                signals.append(ended - looked[0])
    witness.close()
    show("look to list", lists)
    show("look to the hog's end", signals)
    print(f"hogs that were not ended: {missed}; longest silence: {systemd.silence():.2f} s", flush=True)


def fixture(folder: Path, number: int, rounds: int) -> None:
    """Lists a directory that stands for /proc, at once and after it has been read in calm times."""
    from sparkhost.watchdog.config import Config
    from sparkhost.watchdog.loop import Watchdog

    made = folder / "proc"
    (made / "4").mkdir(parents=True)
    (made / "4" / "cgroup").write_text("0::/user.slice/user-1000.slice/session-1.scope\n")
    (made / "4" / "stat").write_text(STAT.format(start=1, pages=400))
    (made / "meminfo").write_text(Path("/proc/meminfo").read_text())
    for pid in range(5, number + 5):
        (made / str(pid)).mkdir()
        for name in ("stat", "cgroup"):
            (made / str(pid) / name).hardlink_to(made / "4" / name)
    hog = made / str(number // 2)
    (hog / "stat").unlink()
    (hog / "stat").write_text(STAT.format(start=2, pages=1 << 20))
    (hog / "status").write_text(f"Uid:\t1000\t1000\nRssAnon:\t{4 << 20} kB\nRssShmem:\t0 kB\n")
    watchdog = Watchdog(Config(), Told(), gpu_file=folder / "none", proc=made, cgroup_root=folder)
    resident = rss_of(os.getpid())
    print(f"first list of {number}: {1000 * timed(watchdog.list_candidates):.0f} ms", flush=True)
    if survey := getattr(watchdog, "survey", None):
        calm = 0.0
        survey.tour(1.0)
        while survey._turn:
            calm += timed(lambda: survey.tour(1.0))
        print(f"read in calm times within {calm:.2f} s of processor time", flush=True)
    used = time.process_time()
    show(f"list of {number}", [timed(watchdog.list_candidates) for _ in range(rounds)])
    print(f"processor time for each: {1000 * (time.process_time() - used) / rounds:.1f} ms", flush=True)
    largest = max(watchdog.list_candidates(), key=lambda candidate: candidate.size)
    grown = (rss_of(os.getpid()) - resident) / 2**20
    print(f"the largest has {largest.size / GIB:.1f} GiB; resident memory has grown by {grown:.1f} MiB", flush=True)


def cgroups(number: int, rounds: int) -> None:
    """Asks who is in a unit with many cgroups below it, which are made for that."""
    from sparkhost.watchdog.cgroup import Cgroups

    root = cgroup_root()
    if root is None:
        print("there is no cgroup v2 tree")
        return
    unit = root / f"sparkfleet-bench-{time.monotonic_ns()}"
    deep, wide = unit.joinpath("deep", *["a"] * 1_500), unit / "wide"
    try:
        unit.mkdir()
        for path in (*reversed(deep.parents), deep):  # mkdir(parents=True) goes into itself as often
            if unit in path.parents:
                path.mkdir()
        wide.mkdir()
        for place in range(number):
            (wide / str(place)).mkdir()
        tree = Cgroups(root)
        for what, folder in ((f"{number} empty cgroups", wide), ("1500 levels", unit / "deep")):
            name = f"/{folder.relative_to(root)}"
            try:
                show(f"members with {what}", [timed(partial(tree.members, name)) for _ in range(rounds)])
            except RecursionError:
                print(f"members with {what}: RecursionError", flush=True)
    finally:
        for path in (*wide.iterdir(), wide, deep, *deep.parents):
            if unit in path.parents and path.is_dir():
                path.rmdir()
        unit.rmdir()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", type=Path, default=HOST, help="default: this version's")
    parser.add_argument("--processes", type=int, default=20_000)
    parser.add_argument("--fixture", type=int, default=50_000)
    parser.add_argument("--cgroups", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    if INSIDE not in os.environ:
        unshare = shutil.which("unshare") or sys.exit("unshare (util-linux) is missing")
        words = [str(unshare), "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, *sys.argv]
        return subprocess.run(words, env={**os.environ, INSIDE: "1"}, check=False).returncode
    sys.path.insert(0, str(options.host))
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="sparkfleet-bench-", dir=memory) as directory:
        with sleepers(options.processes) as number:
            print(f"{number} real processes, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
            crossings(Path(directory), options.rounds)
        if options.fixture:
            fixture(Path(directory), options.fixture, options.rounds)
    if options.cgroups:
        cgroups(options.cgroups, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
