"""Hosts that never stop talking, in every way: the kinds that tests/unit/test_endless_hosts.py leaves out."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.doubles import sshd
from tests.unit.test_endless_hosts import MIB, MOST, SAID, endless, quiet, seen

__all__ = ["quiet"]


def bloated(line: str, text: str, channel: paramiko.Channel) -> None:
    """As long as is read, and of what takes most memory for its length."""
    sshd.answer(channel, '{"plan": [' + '{"a":0},' * (MIB // 5) + "0]}\n")


def many_mistakes(line: str, text: str, channel: paramiko.Channel) -> None:
    """Of the right form as far as can be, and wrong in as many places as can be."""
    sshd.answer(channel, json.dumps({"plan": {str(i): {} for i in range(7_000)}}) + "\n")


def wide(line: str, text: str, channel: paramiko.Channel) -> None:
    """One character makes CPython keep the whole text with four bytes each."""
    measure = {**sshd.EMPTY, "changes": [{**sshd.CHANGE, "diff": "\U0001f600" + "x" * (2 * MIB - 1000)}]}
    found: dict[str, Any] = {"applied": None, "plan": {"swap": measure}, "history": {"measures": {}, "last": None}}
    sshd.answer(channel, json.dumps(found, ensure_ascii=False) + "\n")


KINDS: dict[str, tuple[sshd.Command, str]] = {
    "one line": (endless(b"y"), "the answer is longer than 2 MiB"),
    "errors": (endless(b"y" * 99 + b"\n", stderr=True), "the answer is longer than 2 MiB"),
    "no text": (endless(b"\n"), "the answer is longer than 2 MiB"),
    "bloated": (bloated, "the answer is more than 50000 values"),
    "many mistakes": (many_mistakes, "the answer has another form"),
    "wide": (wide, ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_costs_a_look_no_more_than_that(kind: str, quiet: Callable[[str], int], tmp_path: Path) -> None:
    command, said = KINDS[kind]
    with sshd.serving(command) as port:
        found = seen(tmp_path, "drift", port)
    assert found.peak - quiet("drift") <= MOST, found
    assert said in found.output
    assert "Traceback" not in found.output


@contextmanager
def babbling(first: bytes, chunk: bytes) -> Iterator[int]:
    """A port that says things of its own in the place of SSH's first packets: before anybody can know who it is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def act() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        connection.sendall(first)
                        for _ in range(SAID):
                            connection.sendall(chunk * (MIB // len(chunk)))

        threading.Thread(target=act, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


STRANGERS = {
    "a first line without end": (b"", b"y", "its first line has no end"),
    "a packet of 2 GiB": (b"SSH-2.0-x\r\n" + struct.pack(">I", 2**31 - 8 + 4), b"y" * 16, "announces a packet"),
    "nothing but lines": (b"", b"y" * 63 + b"\n", "Indecipherable protocol version"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_who_has_not_shown_a_key_costs_no_more(kind: str, quiet: Callable[[str], int], tmp_path: Path) -> None:
    first, chunk, said = STRANGERS[kind]
    with babbling(first, chunk) as port:
        found = seen(tmp_path, "drift", port)
    assert found.peak - quiet("drift") <= MOST, found
    assert (found.rc, "Traceback" in found.output) == (3, False), found.output
    assert said in found.output


class Floods(sshd.Server):
    """Sends before it has said that a command begins, and more than was granted: nobody reads it yet."""

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def act() -> None:
            with suppress(OSError, EOFError):
                channel.out_window_size = 2**40
                for _ in range(SAID):
                    channel.sendall(b"y" * MIB)

        threading.Thread(target=act, daemon=True).start()
        time.sleep(30)
        return False


def test_what_was_not_granted_is_not_kept(quiet: Callable[[str], int], tmp_path: Path) -> None:
    with sshd.serving(sshd.hangs, kind=Floods) as port:
        found = seen(tmp_path, "drift", port)
    assert found.peak - quiet("drift") <= MOST, found
    assert (found.rc, "Traceback" in found.output) == (3, False), found.output
