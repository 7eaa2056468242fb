"""Wheels on the controller: fetched once by hash, kept, and taken to hosts that have no internet."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gevent.lock import BoundedSemaphore
from paramiko import SFTPClient, SSHException
from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector

from sparkhost.files import digest
from sparkhost.resource import UPLOADS_IN, Need

# One fetch at a time in this process: many hosts need the same file, and the second finds it there.
_FETCHING = BoundedSemaphore()
# What this process has found out, by SHA-256: a wheel is hashed once, and one that cannot be had is tried for once.
_FETCHED: dict[str, Path] = {}
_FAILED: dict[str, str] = {}
# manylinux tags that the hosts' glibc 2.36 and later satisfies; pip wants each named.
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


class NoWheel(Exception):
    """A wheel cannot be had. One line, with the remedy."""


def cache() -> Path:
    """Where wheels are kept, by SHA-256: `${XDG_CACHE_HOME:-~/.cache}/sparkfleet/wheels`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sparkfleet" / "wheels"


def fetch(need: Need) -> Path:
    """The wheel, from the cache or with pip, whose own settings (index, proxy, certificates) hold.

    Raises:
        NoWheel: it cannot be downloaded or kept, or its hash is another.
    """
    with _FETCHING:
        if need.sha256 in _FAILED:
            raise NoWheel(_FAILED[need.sha256])
        if need.sha256 not in _FETCHED:
            try:
                _FETCHED[need.sha256] = _fetch(need, cache() / need.sha256)
            except NoWheel as error:
                _FAILED[need.sha256] = str(error)
                raise
            except OSError as error:
                raise NoWheel(f"cannot keep wheels in {cache()}: {error.strerror or error}") from error
        return _FETCHED[need.sha256]


def _fetch(need: Need, directory: Path) -> Path:
    for path in sorted(directory.glob("*.whl")):
        if digest(path) == need.sha256:
            return path
    directory.mkdir(parents=True, exist_ok=True)
    # Downloaded aside and moved in whole: a run that is killed, or a second one, leaves no part of a wheel there.
    with tempfile.TemporaryDirectory(dir=cache(), prefix=".fetch-") as aside:
        wheel = download(need, Path(aside), directory)
        if digest(wheel) != need.sha256:
            raise NoWheel(f"{wheel.name} does not have the SHA-256 {need.sha256} that the fleet file names")
        return wheel.replace(directory / wheel.name)


def download(need: Need, aside: Path, directory: Path) -> Path:
    """Downloads with pip into `aside`. pip checks the hash as well (--require-hashes).

    Raises:
        NoWheel: pip failed, with its first reason, and `directory`, which a person can put the wheel into.
    """
    requirements = aside / "requirements.txt"
    requirements.write_text(f"{need.requirement} --hash=sha256:{need.sha256}\n")
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    command += ["download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--requirement", str(requirements), "--dest", str(aside)]
    command += ["--python-version", "3.12", *(f"--platform={tag}_{need.machine}" for tag in _PLATFORMS)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = list(aside.glob("*.whl"))
    if result.returncode or not found:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel"]
        others = ", ".join(path.name for path in sorted(directory.glob("*.whl")))
        raise NoWheel(
            f"cannot download {need.requirement} for {need.machine}: {lines[0].removeprefix('ERROR: ')}; "
            f"without internet, put the wheel into {directory}"
            + (f" ({others} in there has another SHA-256)" if others else "")
        )
    return found[0]


@contextmanager
def delivered(host: Host, needs: Sequence[Need]) -> Iterator[dict[str, str]]:
    """Has wheels on the host for the length of the block: SHA-256 → path there.

    They go into a directory of mode 0700 and of a random name, so that deploys at the same time do not meet and nobody
    can be there first. The host's root side copies them and checks the hash of its copy. Streamed from disk: a
    hundred hosts do not hold a hundred wheels in memory.

    Raises:
        NoWheel: one cannot be had, or the host does not take it; a full disk, mostly.
        OSError, EOFError, SSHException: the connection was lost.
    """
    paths = {need.sha256: fetch(need) for need in needs}
    connector = host.connector
    if not paths or isinstance(connector, LocalConnector):
        yield {sha256: str(path) for sha256, path in paths.items()}
        return
    if not isinstance(connector, SSHConnector) or connector.client is None:
        raise NoWheel(f"no way to upload a file to {host.name}: only SSH and @local hosts take wheels")
    directory = f"{UPLOADS_IN}/sparkfleet-{secrets.token_hex(8)}"
    try:
        sftp = connector.client.open_sftp()
    except SSHException as error:
        raise NoWheel(f"no way to upload a file to {host.name}: its SSH service has no SFTP ({error})") from error
    with sftp:
        try:
            yield upload(sftp, paths, directory)
        finally:
            take_away(host, sftp, directory)


def upload(sftp: SFTPClient, paths: dict[str, Path], directory: str) -> dict[str, str]:
    """Puts the wheels into a new directory on the host. Raises NoWheel where the host does not take them."""
    there: dict[str, str] = {}
    try:
        sftp.mkdir(directory, 0o700)
        for sha256, path in paths.items():
            there[sha256] = f"{directory}/{sha256}"
            sftp.put(str(path), there[sha256])
    except OSError as error:
        names = ", ".join(path.name for path in paths.values())
        raise NoWheel(f"cannot upload {names} to {UPLOADS_IN}: {error}; is that disk full?") from error
    return there


def take_away(host: Host, sftp: SFTPClient, directory: str) -> None:
    """Removes a directory of uploads from the host. Where the connection is gone, systemd-tmpfiles will in time."""
    try:
        for name in sftp.listdir(directory):
            sftp.remove(f"{directory}/{name}")
        sftp.rmdir(directory)
    except FileNotFoundError:
        return
    except (OSError, EOFError, SSHException) as error:
        logger.warning(f"{host.print_prefix}{directory} was left behind: {error or type(error).__name__}")
