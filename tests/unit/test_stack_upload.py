"""Wheels over SFTP: gone on with after a cut, never believed by their name, taken away again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from tasks.lib.wheels import size_of, upload

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 8192


class Files(paramiko.SFTPServerInterface):
    """A folder, served as sshd's own SFTP server does: a double of a host at its interface."""

    folder: Path
    handle: type[paramiko.SFTPHandle]

    def path(self, name: str) -> Path:
        return self.folder / name.lstrip("/")

    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(self.path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> Any:
        writes = "ab" if flags & os.O_APPEND else "wb"
        stream = self.path(path).open(writes if flags & os.O_WRONLY else "rb")
        handle = self.handle(flags)
        setattr(handle, "readfile", stream)  # noqa: B010 - paramiko's way to serve a file
        setattr(handle, "writefile", stream)  # noqa: B010
        return handle


class Anybody(paramiko.ServerInterface):
    def check_auth_none(self, username: str) -> int:
        return int(AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(OPEN_SUCCEEDED)


class Drips(paramiko.SFTPHandle):
    """Takes what it is given, and takes its time for each piece."""

    def write(self, offset: int, data: Any) -> int:
        time.sleep(0.2)
        return super().write(offset, data)


@contextmanager
def served(folder: Path, handle: type[paramiko.SFTPHandle] = paramiko.SFTPHandle) -> Iterator[paramiko.Transport]:
    """A connection to a server that serves this folder."""
    ours, theirs = socket.socketpair()
    server = paramiko.Transport(theirs)
    server.add_server_key(paramiko.ECDSAKey.generate())
    interface = type("Served", (Files,), {"folder": folder, "handle": handle})
    server.set_subsystem_handler("sftp", paramiko.SFTPServer, interface)
    ready = threading.Event()
    server.start_server(event=ready, server=Anybody())
    client = paramiko.Transport(ours)
    client.start_client(timeout=30)
    client.auth_none("admin")
    yield client
    client.close()
    server.close()


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[paramiko.SFTPClient]:
    """A connection to a server whose folder is `host` below the test's."""
    (tmp_path / "host").mkdir()
    with served(tmp_path / "host") as transport:
        found = paramiko.SFTPClient.from_transport(transport)
        assert found is not None
        yield found


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "x-1.0-py3-none-any.whl"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("there", [None, 0, 1, 500_000, len(CONTENT) - 1])
def test_what_is_there_is_gone_on_with(
    sftp: paramiko.SFTPClient, wheel: Path, tmp_path: Path, there: int | None
) -> None:
    target = tmp_path / "host" / "aa"
    if there is not None:
        target.write_bytes(CONTENT[:there])
    upload(sftp, wheel, "/aa")
    assert target.read_bytes() == CONTENT


def test_a_whole_file_is_not_sent_again(sftp: paramiko.SFTPClient, wheel: Path, tmp_path: Path) -> None:
    """Nor looked into: the host's root side hashes it, and refuses it."""
    target = tmp_path / "host" / "aa"
    other = bytes(len(CONTENT))
    target.write_bytes(other)
    upload(sftp, wheel, "/aa")
    assert target.read_bytes() == other


def test_a_file_that_is_too_long_is_sent_anew(sftp: paramiko.SFTPClient, wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "host" / "aa"
    target.write_bytes(CONTENT + b"x")
    upload(sftp, wheel, "/aa")
    assert target.read_bytes() == CONTENT


def test_the_size_of_nothing_is_none(sftp: paramiko.SFTPClient) -> None:
    assert size_of(sftp, "/nothing") is None


# In a process of its own: limits of time are gevent's, which must be there before all else.
DRIPPING = """\
from gevent import monkey
monkey.patch_all()
import sys, time
from pathlib import Path
from types import SimpleNamespace
from tasks.lib.wheels import sftp_of, upload
from tests.unit.test_stack_upload import Drips, served
folder = Path(sys.argv[1])
(folder / "host").mkdir()
(folder / "wheel").write_bytes(bytes(64 * 2**20))
with served(folder / "host", Drips) as transport:
    connector = SimpleNamespace(client=SimpleNamespace(get_transport=lambda: transport))
    began = time.monotonic()
    try:
        with sftp_of(connector, 1) as sftp:
            upload(sftp, folder / "wheel", "/wheel")
    except TimeoutError as error:
        print(time.monotonic() - began < 5, transport.is_active(), error)
"""


def test_a_host_that_takes_an_upload_drop_by_drop_is_given_up(tmp_path: Path) -> None:
    """No step takes long: without a limit for all of them this one would take minutes."""
    done = subprocess.run(
        [sys.executable, "-c", DRIPPING, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("True False an upload was not done within 1 s: the next deploy goes on with it")
