"""What is heard from a host while files are taken to it."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator

import paramiko
import pytest
from paramiko import SSHException, Transport

from tasks.lib import bounds
from tests.doubles import sshd

VERSION = struct.pack(">IBI", 5, 2, 3)
"""A whole first packet of SFTP: its length, SSH_FXP_VERSION, 3."""


class Uploads(sshd.Server):
    """Takes uploads as told."""

    said = b""

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        threading.Timer(0.2, channel.sendall, [self.said]).start()
        return True


class Huge(Uploads):
    said = struct.pack(">IB", 2**23, 2)


class Silent(Uploads):
    said = VERSION


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    with sshd.serving(sshd.hangs, kind=request.param) as port:
        transport = Transport(("127.0.0.1", port))
        transport.connect(username="admin", pkey=paramiko.ECDSAKey.generate())
        yield transport
        transport.close()


@pytest.mark.parametrize("transport", [Huge], indirect=True)
def test_a_host_that_announces_too_much_for_an_upload_is_not_heard(transport: Transport) -> None:
    with pytest.raises(SSHException, match="announces 8388608 bytes"):
        bounds.open_sftp(transport, 20)


@pytest.mark.parametrize("transport", [Silent], indirect=True)
def test_a_host_that_is_silent_in_an_upload_is_given_up(transport: Transport) -> None:
    began = time.monotonic()
    with bounds.open_sftp(transport, 1) as sftp, pytest.raises(OSError, match=r"timed out|^$"):
        sftp.stat("/")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("transport", [Silent], indirect=True)
def test_all_answers_of_a_connection_together_are_bounded(transport: Transport) -> None:
    bounds.count(transport, bounds.RUN_BYTES)
    with pytest.raises(bounds.TooMuch, match="all its answers together are longer than 8 MiB"):
        bounds.count(transport, 1)
