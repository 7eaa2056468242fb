"""The root helper over real sockets, asked by real users, PID 1 played by systemd's own library."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparkhost.launcher import bus, helper
from sparkhost.launcher import config as configuration
from sparkhost.launcher.client import Trouble, ask
from sparkhost.launcher.request import LONGEST, DropCache, Request, Start, Stop
from sparkhost.launcher.run import pair
from tests.unit.launcher_peer import Peer

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the helper is root, and its callers are not")

MEMBER, OTHER, NOBODY_KNOWS = 1, 2, 54321  # daemon and bin, on Debian and Ubuntu
MIB = 2**20


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose files are elsewhere. Members of the group daemon may start jobs."""
    monkeypatch.setattr(configuration, "PATH", tmp_path / "launcher.json")
    monkeypatch.setattr(helper, "RUN", tmp_path / "run")
    monkeypatch.setattr(helper, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(helper, "DROP_CACHES", tmp_path / "drop_caches")
    monkeypatch.setattr(bus, "SYSTEM_BUS", str(tmp_path / "bus"))
    configuration.PATH.write_text('{"_": "managed", "group": "daemon", "jobs_max": 2}')
    return tmp_path


@pytest.fixture
def address(host: Path) -> Iterator[str]:
    """A helper that serves, by an abstract socket."""
    name = f"\0sparkfleet-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(name)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            helper.serve(listener, idle=60)
            os._exit(0)
    yield name
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def as_user(uid: int, action: Callable[[], str]) -> str:
    """What a process of that user gets as an answer; a refusal is its text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                text = action()
            except Trouble as trouble:
                text = str(trouble)
            os.write(writing, text.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return text


def asking(address: str, request: Request, fds: Callable[[], list[int]] = list) -> Callable[[], str]:
    return lambda: json.dumps(ask(request, fds(), address))


def own_socket() -> list[int]:
    _, theirs = pair()
    return [theirs.detach()]


def test_a_member_starts_a_job_as_itself(address: str, host: Path) -> None:
    peer = Peer(host / "bus")
    answer = json.loads(as_user(MEMBER, asking(address, Start(memory=64 * MIB, name="x"), own_socket)))
    assert answer["unit"] == f"spark-job-1-{answer['id']}.service"
    text = " ".join(peer.read().split())
    assert f'STRING "{answer["unit"]}"; STRING "fail";' in text
    assert 'STRING "User"; VARIANT "s" { STRING "1"; };' in text
    assert 'VARIANT "t" { UINT64 67108864; };' in text
    status = (host / "run" / "jobs" / "1").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (MEMBER, 0o700)


@pytest.mark.parametrize(
    ("uid", "reason"),
    [(0, "never as root"), (OTHER, "bin is not in the group daemon"), (NOBODY_KNOWS, "the user 54321 or the group")],
)
def test_nobody_else_starts_jobs(address: str, host: Path, uid: int, reason: str) -> None:
    for request in (Start(), Stop("00000000"), DropCache()):
        assert reason in as_user(uid, asking(address, request, own_socket))
    assert not (host / "run").exists()


def no_socket() -> list[int]:
    return [os.open("/dev/null", os.O_RDWR)]


def stream_socket() -> list[int]:
    return [socket.socketpair()[0].detach()]


@pytest.mark.parametrize("fds", [list, no_socket, stream_socket, lambda: [*own_socket(), *own_socket()]])
def test_only_a_socket_pair_is_passed_on(address: str, fds: Callable[[], list[int]]) -> None:
    told = as_user(MEMBER, asking(address, Start(), fds))
    assert "socket" in told or "SOCK_SEQPACKET pair" in told or "is not JSON" in told


def test_a_socket_of_another_user_is_not_passed_on(address: str) -> None:
    foreign = own_socket()  # made by root, before the caller becomes itself
    assert "of the caller's own" in as_user(MEMBER, asking(address, Start(), lambda: foreign))


def test_another_users_job_is_not_stopped(address: str, host: Path) -> None:
    (host / "cgroup" / "training.slice" / "spark-job-2-00000000.service").mkdir(parents=True)
    (host / "cgroup" / "training.slice" / "spark-job-11-00000000.service").mkdir(parents=True)
    assert "no job 00000000 of yours is running" in as_user(MEMBER, asking(address, Stop("00000000")))
    (host / "cgroup" / "training.slice" / "spark-job-1-00000000.service").mkdir(parents=True)
    peer = Peer(host / "bus")
    assert json.loads(as_user(MEMBER, asking(address, Stop("00000000"))))["ok"] is True
    assert "Member=StopUnit" in (text := peer.read())
    assert 'STRING "spark-job-1-00000000.service"' in text


def test_jobs_are_counted(address: str, host: Path) -> None:
    for number in range(2):
        (host / "cgroup" / "training.slice" / f"spark-job-1-0000000{number}.service").mkdir(parents=True)
    assert "2 jobs of yours are running" in as_user(MEMBER, asking(address, Start(), own_socket))


def test_more_than_the_slice_is_refused(address: str) -> None:
    assert "training.slice has" in as_user(MEMBER, asking(address, Start(memory=2**50), own_socket))


def test_a_systemd_that_is_not_there_is_one_line(address: str) -> None:
    assert "no connection to the system bus" in as_user(MEMBER, asking(address, Start(), own_socket))


def test_the_cache_is_dropped_at_most_once_in_a_while(address: str, host: Path) -> None:
    (host / "drop_caches").write_text("")
    assert json.loads(as_user(MEMBER, asking(address, DropCache()))) == {"ok": True}
    assert (host / "drop_caches").read_text() == "1\n"
    (host / "drop_caches").write_text("")
    assert "was dropped a moment ago" in as_user(MEMBER, asking(address, DropCache()))
    assert (host / "drop_caches").read_text() == ""


@pytest.mark.parametrize("data", [b"x", b"{}", b"\0" * 500, b"{" * LONGEST, b"x" * (LONGEST + 1), b"y" * 100_000])
def test_garbage_is_answered_and_the_next_is_served(address: str, data: bytes) -> None:
    def send() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(address)
            connection.send(data)
            return connection.recv(1000).decode()

    assert json.loads(as_user(MEMBER, send))["ok"] is False
    assert "no job" in as_user(MEMBER, asking(address, Stop("00000000")))


def test_who_says_nothing_keeps_nobody_waiting_but_itself(address: str) -> None:
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(helper.PER_USER)]
    for connection in silent:
        connection.connect(address)
    assert "no job" in as_user(MEMBER, asking(address, Stop("00000000")))
    with pytest.raises(Trouble, match="too many requests"):  # root, as the silent ones are
        ask(Stop("00000000"), path=address)
    for connection in silent:
        connection.close()


def test_a_helper_that_nobody_asks_ends() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")
        listener.listen()
        helper.serve(listener, idle=0.05)


def test_a_host_without_the_measure_is_one_line(host: Path) -> None:
    with pytest.raises(Trouble, match="is the measure training_slice deployed"):
        ask(Stop("00000000"), path=str(host / "no.sock"))


def test_a_replaced_helper_ends_and_leaves_who_waits_to_the_next_one(host: Path) -> None:
    name = f"\0sparkfleet-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(name)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            helper.serve(listener, idle=60, replaced=(host / "new").exists)
            os._exit(0)
        assert "no job 00000000" in as_user(MEMBER, asking(name, Stop("00000000")))
        (host / "new").touch()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
            waiting.connect(name)
            assert os.waitpid(pid, 0)[1] == 0
            listener.accept()[0].close()  # as systemd finds it
