"""Wheels to 1 and 4 hosts: over SSH, as a deploy takes them, over HTTP, and by each host from an index far away.

Transfers only, on one machine: a host is a folder. SSH is OpenSSH's sshd on 127.0.0.1 with `tasks.lib.wheels.upload` in
a thread for each host (a deploy has greenlets: one core for all in both). HTTP is Python's static server with one
process for each host that fetches. "Far away" is such a server whose hosts share `UPLINK` bytes/s. Left out: a LAN's
bandwidth and round trips, hosts' own disks and cores, TLS, and what a host does with the wheels.
"""

from __future__ import annotations

import base64
import functools
import http.server
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import paramiko
from rich.console import Console
from rich.table import Table

from tasks.lib.wheels import upload

COUNTS = (1, 4)
PORT = 2710
UPLINK = 50e6
PIECE = 256 * 1024
FETCH = "import shutil,sys,urllib.request as u\nfor a in sys.argv[2:]:\n with u.urlopen(a) as s, open(sys.argv[1]+'/'+a.rpartition('/')[2],'wb') as o: shutil.copyfileobj(s,o,262144)"  # noqa: E501
SERVE = "import sys; from tests.bench.stack_mirror import serve; serve(sys.argv[1], float(sys.argv[2]))"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Static files; all connections together no faster than `rate` bytes/s, where that is not 0."""

    protocol_version = "HTTP/1.1"
    rate = 0.0
    free_at = 0.0
    lock = threading.Lock()

    def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:  # type: ignore[override]
        while piece := source.read(PIECE):
            if Handler.rate:
                with Handler.lock:
                    Handler.free_at = max(Handler.free_at, time.monotonic()) + len(piece) / Handler.rate
                    wait = Handler.free_at - time.monotonic()
                time.sleep(max(0.0, wait))
            outputfile.write(piece)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(folder: str, rate: float) -> None:
    """Prints its port and serves until it is killed."""
    Handler.rate = rate
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextmanager
def serving(folder: Path, rate: float) -> Iterator[str]:
    words = [sys.executable, "-c", SERVE, str(folder), str(rate)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip() if process.stdout else ''}"
    finally:
        process.kill()
        process.communicate()


@contextmanager
def sshd(folder: Path) -> Iterator[Callable[[], paramiko.SSHClient]]:
    """OpenSSH's server, and how to connect to it."""
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    options = {"HostKey": folder / "host_key", "AuthorizedKeysFile": folder / "key.pub", "StrictModes": "no"}
    options |= {"ListenAddress": "127.0.0.1", "UsePAM": "no", "PidFile": "none", "Subsystem": "sftp internal-sftp"}
    words = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", str(PORT)]
    words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    for line in process.stderr or []:
        if "listening" in line:
            break
    else:
        raise SystemExit("bench: sshd did not start")
    kind, public, *_ = (folder / "host_key.pub").read_text().split()

    def connect() -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        known = paramiko.Ed25519Key(data=base64.b64decode(public))
        client.get_host_keys().add(f"[127.0.0.1]:{PORT}", kind, known)
        client.connect("127.0.0.1", PORT, "root", key_filename=str(folder / "key"), allow_agent=False)
        return client

    try:
        yield connect
    finally:
        process.kill()
        process.communicate()


def main(folder: Path, wheels: Sequence[Path], rounds: int) -> None:
    """Prints the table."""
    place = folder / "mirror"
    size = sum(path.stat().st_size for path in wheels)
    table = Table("way", "hosts", "s", "MB/s, all hosts", "/ SSH", title=f"{size / 1e6:.0f} MB of wheels to each host")
    with (
        sshd(made(folder / "ssh")) as connect,
        serving(wheels[0].parent, 0) as near,
        serving(wheels[0].parent, UPLINK) as far,
    ):

        def over_ssh(target: Path) -> None:
            with connect() as client, client.open_sftp() as sftp:
                for wheel in wheels:
                    upload(sftp, wheel, str(target / wheel.name))

        def over_http(base: str, target: Path) -> None:
            addresses = [f"{base}/{wheel.name}" for wheel in wheels]
            subprocess.run([sys.executable, "-c", FETCH, str(target), *addresses], check=True)

        def mirrored(count: int) -> None:
            over_http(far, made(place / "controller"))
            to_all(count, over_ssh)

        def to_all(count: int, way: Callable[[Path], None]) -> None:
            targets = [made(place / f"host{number}") for number in range(count)]
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(way, targets))
            if any(
                (target / wheel.name).stat().st_size != wheel.stat().st_size for target in targets for wheel in wheels
            ):
                raise SystemExit("bench: a wheel did not arrive whole")

        ways: dict[str, Callable[[int], None]] = {
            "SSH (paramiko's SFTP, a deploy's way)": lambda count: to_all(count, over_ssh),
            "static HTTP": lambda count: to_all(count, functools.partial(over_http, near)),
            f"each from far away ({UPLINK / 1e6:.0f} MB/s for all)": lambda count: to_all(
                count, functools.partial(over_http, far)
            ),
            "once from far away, then SSH": mirrored,
        }
        for count in COUNTS:
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds):
                for name, way in ways.items():
                    started = time.monotonic()
                    way(count)
                    taken[name].append(time.monotonic() - started)
                    shutil.rmtree(place)
            base = statistics.median(next(iter(taken.values())))
            for name, values in taken.items():
                seconds = statistics.median(values)
                speed = f"{size * count / 1e6 / seconds:.0f}"
                table.add_row(name, str(count), f"{seconds:.2f}", speed, f"{seconds / base:.2f}")
    Console(width=110).print(table)


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
