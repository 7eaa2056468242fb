"""Wheels on the controller: fetched once by hash, kept, and taken to hosts that have no internet."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from paramiko import SFTPClient, SFTPError, SSHException
from pyinfra.api.host import Host
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector

from sparkfleet import child
from sparkfleet.foreign import line
from sparkfleet.wheel_cache import cache
from sparkhost.base.files import digest
from sparkhost.base.resource import Need
from tasks.lib import bounds

# One fetch at a time in this process: many hosts need the same file, and the second finds it there.
_FETCHING = BoundedSemaphore()
# manylinux tags, up to Ubuntu 24.04's glibc; pip wants each named. The hash decides which file it is.
_PLATFORMS = (*(f"manylinux_2_{glibc}" for glibc in range(39, 4, -1)), "manylinux2014", "manylinux2010", "linux")
PIP_SECONDS = 3600.0
"""The largest wheel of a stack has 1 GB."""
SFTP_SECONDS = 120.0
"""Most that a host may take for any one step of an upload."""
UPLOAD_SECONDS, LEAST_RATE = 300.0, 500_000
"""Seconds that a whole upload may take, and one more for so many bytes: each step may be in time, and all of them not.
All hosts wait for the slowest. A hundred of them share 1 Gbit/s at 1.25 MB/s each; what was cut is gone on with.
"""
UPLOADS = ".cache/sparkfleet-uploads"
LONG = 200e6
"""Bytes of an upload from which on its progress is told."""


class NoWheel(Exception):
    """A wheel cannot be had. One line, with the remedy."""


def fetch(need: Need) -> Path:
    """The wheel, from the cache or with pip, whose own settings (index, proxy, certificates) hold.

    Raises:
        NoWheel: it cannot be downloaded, or its hash is another.
    """
    directory = cache() / need.sha256
    with _FETCHING:
        for path in directory.glob("*.whl"):
            if digest(path) == need.sha256:
                return path
            path.unlink()
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache(), prefix=".fetch-") as aside:
            wheel = download(need, Path(aside), directory)
            if digest(wheel) != need.sha256:
                raise NoWheel(f"{wheel.name} does not have the SHA-256 {need.sha256} that the fleet file names")
            return wheel.replace(directory / wheel.name)


def download(need: Need, aside: Path, directory: Path) -> Path:
    """Downloads with pip into `aside`. pip checks the hash as well (--require-hashes)."""
    requirements = aside / "requirements.txt"
    requirements.write_text(f"{need.requirement} --hash=sha256:{need.sha256}\n")
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements), "--dest", str(aside)]
    command += ["--python-version", "3.12", *(f"--platform={tag}_{need.machine}" for tag in _PLATFORMS)]
    try:
        result = child.run(command, child.Limits(PIP_SECONDS))
    except child.OutOfBounds as error:
        raise NoWheel(f"cannot download {need.requirement} for {need.machine}: pip: {error}") from error
    found = list(aside.glob("*.whl"))
    if result.rc or not found:
        lines = [line(each) for each in result.lines() if each.startswith("ERROR")] or ["no wheel"]
        raise NoWheel(
            f"cannot download {need.requirement} for {need.machine}: {lines[0].removeprefix('ERROR: ')}; "
            f"without internet, put the wheel into {directory}"
        )
    return found[0]


def deliver(host: Host, wheels: Mapping[str, Path], tell: Callable[[str], None]) -> dict[str, str]:
    """Puts wheels (SHA-256 → file) on the host, into a directory of the admin's own (mode 0700), and says where.

    The host's root side copies each and checks the hash of its copy, so a file left by a cut upload does no harm; such
    a file is gone on with. Streamed from disk: a hundred hosts do not hold a hundred wheels in memory. `tell` is
    called with a line for a person at every tenth of a long upload.

    Raises:
        NoWheel: the host does not take it; a full disk, mostly.
        TimeoutError: it takes it too slowly (UPLOAD_SECONDS, LEAST_RATE).
        EOFError, SSHException: the connection was lost.
    """
    connector = host.connector
    if isinstance(connector, LocalConnector):
        return {sha256: str(wheel) for sha256, wheel in wheels.items()}
    if not isinstance(connector, SSHConnector) or connector.client is None:
        raise NoWheel(f"no way to upload a file to {host.name}: only SSH and @local hosts take wheels")
    total, sent, told = sum(wheel.stat().st_size for wheel in wheels.values()), 0, 0
    targets: dict[str, str] = {}
    with sftp_of(connector, UPLOAD_SECONDS + total / LEAST_RATE) as sftp:
        home = sftp.normalize(".")
        directory = f"{home}/{UPLOADS}"
        try:
            for path in (f"{home}/.cache", directory):
                if size_of(sftp, path) is None:
                    sftp.mkdir(path, 0o700)
            sftp.chmod(directory, 0o700)
            for sha256, wheel in wheels.items():
                upload(sftp, wheel, f"{directory}/{sha256}")
                targets[sha256] = f"{directory}/{sha256}"
                sent += wheel.stat().st_size
                if total > LONG and sent * 10 // total > told:
                    told = sent * 10 // total
                    tell(f"{len(targets)} of {len(wheels)} wheels, {sent / 1e9:.2f} of {total / 1e9:.2f} GB are there")
        except (OSError, SFTPError) as error:
            raise NoWheel(line(f"cannot upload wheels to {directory}: {error}; is the host's disk full?")) from error
    return targets


@contextmanager
def sftp_of(connector: SSHConnector, seconds: float) -> Iterator[SFTPClient]:
    """A way to upload files, for so long at most.

    Raises:
        TimeoutError: all of it takes longer; the connection is closed then.
        SSHException: the connection is gone; OSError.
    """
    transport = connector.client.get_transport() if connector.client else None
    if transport is None:
        raise SSHException("the connection is gone")
    late = Event()

    def end() -> None:
        late.set()
        # Not only an exception: on its way out, a file that is open waits for every answer that is due.
        transport.close()

    timer = gevent.spawn_later(seconds, end)
    try:
        with bounds.open_sftp(transport, SFTP_SECONDS) as sftp:
            yield sftp
    except Exception as error:
        if late.is_set():
            text = f"an upload was not done within {seconds:.0f} s: the next deploy goes on with it"
            raise TimeoutError(text) from error
        raise
    finally:
        timer.kill()


def upload(sftp: SFTPClient, wheel: Path, target: str) -> None:
    """Sends what of a file is not there yet. Raises OSError."""
    size = wheel.stat().st_size
    there = size_of(sftp, target) or 0
    if there == size:
        return
    with wheel.open("rb") as source, sftp.open(target, "ab" if there < size else "wb") as out:
        source.seek(there if there < size else 0)
        out.set_pipelined(True)
        shutil.copyfileobj(source, out, 256 * 1024)
    if size_of(sftp, target) != size:
        raise OSError("it arrived cut short")


def size_of(sftp: SFTPClient, path: str) -> int | None:
    """Bytes; None: there is no such file."""
    try:
        return sftp.stat(path).st_size or 0
    except FileNotFoundError:
        return None


def take_away(host: Host, paths: Iterable[str]) -> None:
    """Removes delivered wheels from the host again; the cache on the controller stays."""
    connector = host.connector
    if isinstance(connector, SSHConnector) and connector.client is not None:
        with sftp_of(connector, UPLOAD_SECONDS) as sftp:
            for path in paths:
                sftp.remove(path)
