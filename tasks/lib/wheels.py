"""Wheels on the controller: fetched once by hash, kept, and taken to hosts that have no internet."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from gevent.lock import BoundedSemaphore
from paramiko import SFTPClient
from pyinfra.api.host import Host
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector

from sparkfleet.wheel_cache import cache
from sparkhost.files import digest
from sparkhost.resource import Need

# One fetch at a time in this process: many hosts need the same file, and the second finds it there.
_FETCHING = BoundedSemaphore()
# manylinux tags that the hosts' glibc 2.36 and later satisfies; pip wants each named.
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
UPLOADS = ".cache/sparkfleet-uploads"


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
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(aside.glob("*.whl"))
    if result.returncode or not found:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel"]
        raise NoWheel(
            f"cannot download {need.requirement} for {need.machine}: {lines[0].removeprefix('ERROR: ')}; "
            f"without internet, put the wheel into {directory}"
        )
    return found[0]


def deliver(host: Host, wheel: Path, sha256: str) -> str:
    """Puts a wheel on the host, into a directory of the admin's own (mode 0700), and says where.

    The host's root side copies it and checks the hash of its copy, so a file left by a cut upload does no harm.
    Streamed from disk: a hundred hosts do not hold a hundred wheels in memory.

    Raises:
        NoWheel: the host does not take it; a full disk, mostly.
        EOFError, SSHException: the connection was lost.
    """
    connector = host.connector
    if isinstance(connector, LocalConnector):
        return str(wheel)
    if not isinstance(connector, SSHConnector) or connector.client is None:
        raise NoWheel(f"no way to upload a file to {host.name}: only SSH and @local hosts take wheels")
    with connector.client.open_sftp() as sftp:
        home = sftp.normalize(".")
        directory = f"{home}/{UPLOADS}"
        target = f"{directory}/{sha256}"
        try:
            for path in (f"{home}/.cache", directory):
                if not exists(sftp, path):
                    sftp.mkdir(path, 0o700)
            sftp.chmod(directory, 0o700)
            sftp.put(str(wheel), target)
        except OSError as error:
            raise NoWheel(f"cannot upload {wheel.name} to {directory}: {error}; is the host's disk full?") from error
        return target


def exists(sftp: SFTPClient, path: str) -> bool:
    try:
        sftp.stat(path)
    except FileNotFoundError:
        return False
    return True


def take_away(host: Host, path: str) -> None:
    """Removes a delivered wheel from the host again; the cache on the controller stays."""
    connector = host.connector
    if isinstance(connector, SSHConnector) and connector.client is not None:
        with connector.client.open_sftp() as sftp:
            sftp.remove(path)
