"""The root helper over real sockets, asked by real users, PID 1 played by systemd's own library."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparkhost.launcher import acts, admission, bus, helper
from sparkhost.launcher import config as configuration
from sparkhost.launcher.client import Trouble, ask
from sparkhost.launcher.request import LONGEST, DropCache, Leave, Request, Start, Stop
from sparkhost.launcher.run import pair
from tests.unit.launcher_peer import Peer

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="the helper is root, and its callers are not")

MEMBER, OTHER, NOBODY_KNOWS = 1, 2, 54321  # daemon and bin, on Debian and Ubuntu
MIB = 2**20


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose files are elsewhere. Members of the group daemon may start jobs."""
    monkeypatch.setattr(configuration, "PATH", tmp_path / "launcher.json")
    monkeypatch.setattr(acts, "RUN", tmp_path / "run")
    monkeypatch.setattr(admission, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(acts, "DROP_CACHES", tmp_path / "drop_caches")
    monkeypatch.setattr(bus, "SYSTEM_BUS", str(tmp_path / "bus"))
    monkeypatch.setattr(helper, "SUBUIDS", tmp_path / "subuid")
    helper.SUBUIDS.write_text("bin:100000:65536\n")
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
    status = (host / "run" / "ends" / "1").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o755)


@pytest.mark.parametrize(
    ("uid", "reason"),
    [(0, "never as root"), (OTHER, "bin is not in the group daemon"), (NOBODY_KNOWS, "the user 54321 or the group")],
)
def test_nobody_else_starts_jobs(address: str, host: Path, uid: int, reason: str) -> None:
    for request in (Start(), Stop("00000000"), Leave("00000000"), DropCache()):
        assert reason in as_user(uid, asking(address, request, own_socket))
    assert not (host / "run").exists()


def test_nothing_of_a_users_fills_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real tmpfs in the place of /run: what a user may write there is nothing, what root keeps is bounded."""
    monkeypatch.setattr(acts, "RUN", Path(tempfile.mkdtemp(prefix="sparkfleet-run-")))  # a place that users may enter
    acts.RUN.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "tmpfs", acts.RUN], check=True)
    try:
        directory = acts.ends_of(MEMBER)
        for number in range(acts.ENDS_KEPT + 7):
            end = directory / f"{number:08x}"
            end.write_text("result=success\n")
            os.utime(end, (number, number))
        acts.ends_of(MEMBER)
        assert sorted(path.name for path in directory.iterdir())[0] == f"{7:08x}"
        assert len(list(directory.iterdir())) == acts.ENDS_KEPT
        places = [path for path in acts.RUN.rglob("*") if path.is_dir()]
        fill = "import sys; [open(p + '/x', 'wb').write(bytes(1 << 24)) for p in sys.argv[1:]]"
        for place in [acts.RUN, *places, directory / f"{9:08x}"]:
            done = subprocess.run(
                ["/usr/bin/python3", "-c", fill, place], user=MEMBER, group=MEMBER, extra_groups=[], check=False,
                capture_output=True, text=True,
            )  # fmt: skip
            assert "PermissionError" in done.stderr or "NotADirectory" in done.stderr
        (acts.RUN / "a-new-unit").write_bytes(bytes(1 << 20))
    finally:
        subprocess.run(["umount", acts.RUN], check=True)
        acts.RUN.rmdir()


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


def drop(address: str, host: Path, uid: int = MEMBER) -> str:
    (host / "drop_caches").write_text("")
    told = as_user(uid, asking(address, DropCache()))
    assert (host / "drop_caches").read_text() == ("1\n" if "true" in told else "")
    return told


def test_the_cache_is_dropped_at_most_once_in_a_while(address: str, host: Path) -> None:
    assert json.loads(drop(address, host)) == {"ok": True}
    assert "was dropped a moment ago" in drop(address, host)


def test_one_user_drops_the_cache_less_often_than_all_together(address: str, host: Path) -> None:
    assert "true" in drop(address, host)
    noted = host / "run" / "cache-dropped"
    (last,) = json.loads(noted.read_text()).values()
    noted.write_text(json.dumps({"1": last - 61, "2": last - 700}))
    assert "was dropped for you a while ago: try again in 5" in drop(address, host)
    noted.write_text(json.dumps({"2": last - 61}))
    assert "true" in drop(address, host)
    assert set(json.loads(noted.read_text())) == {"1", "2"}


@pytest.mark.parametrize("noted", ["", "x", "[]", '{"1": "x"}', '{"1": 1e999}', "123.4", "[" * 9999])
def test_a_note_of_the_last_time_that_is_none_keeps_nobody_from_it(address: str, host: Path, noted: str) -> None:
    (host / "run").mkdir(exist_ok=True)
    (host / "run" / "cache-dropped").write_text(noted)
    assert "true" in drop(address, host)


@pytest.mark.parametrize("data", [b"x", b"{}", b"\0" * 500, b"{" * LONGEST, b"x" * (LONGEST + 1), b"y" * 100_000])
def test_garbage_is_answered_and_the_next_is_served(address: str, data: bytes) -> None:
    def send() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(address)
            connection.send(data)
            return connection.recv(1000).decode()

    assert json.loads(as_user(MEMBER, send))["ok"] is False
    assert "no job" in as_user(MEMBER, asking(address, Stop("00000000")))


class Silent:
    """A process of a user that holds connections and says nothing, until it is closed. `again`: makes new ones without
    end.
    """

    def __init__(self, address: str, uid: int, count: int, again: bool = False) -> None:
        ready = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                connections = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
                for connection in connections:
                    connection.connect(address)
                os.write(ready[1], b"x")
                while again:
                    connections = [*connections[1:], socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
                    connections[-1].connect(address)
                signal.pause()
            finally:
                os._exit(0)
        os.close(ready[1])
        assert os.read(ready[0], 1) == b"x"
        os.close(ready[0])

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def test_who_says_nothing_keeps_nobody_waiting_but_itself(address: str) -> None:
    """A member has its places and no more; what it does with them costs root nothing."""
    assert "no job" in as_user(MEMBER, asking(address, Stop("00000000")))
    silent = Silent(address, MEMBER, helper.PER_USER)
    assert "too many requests" in as_user(MEMBER, asking(address, Stop("00000000")))
    assert "never as root" in as_user(0, asking(address, Stop("00000000")))
    silent.close()


@pytest.mark.parametrize("first", [100_000, 300_000], ids=["in /etc/subuid", "of a directory service"])
def test_silent_sub_uids_take_no_place_from_anybody(address: str, first: int) -> None:
    silent = [Silent(address, first + number, helper.PER_USER) for number in range(8)]
    if first == 300_000:
        time.sleep(0.5)  # nothing tells them from users until NSS has been asked
    told = [as_user(MEMBER, asking(address, Stop("00000000"))) for _ in range(30)]
    for one in silent:
        one.close()
    assert [text for text in told if "no job 00000000 of yours" not in text] == []


def test_a_training_user_that_the_helper_knows_is_served_whoever_floods_it(address: str) -> None:
    assert "no job" in as_user(MEMBER, asking(address, Stop("00000000")))
    flood = [Silent(address, 100_000, 1, again=True), Silent(address, OTHER, 1, again=True)]
    told = [as_user(MEMBER, asking(address, Stop("00000000"))) for _ in range(20)]
    for one in flood:
        one.close()
    assert [text for text in told if "no job 00000000 of yours" not in text] == []


def test_who_is_no_member_is_told_so_before_having_said_anything(address: str) -> None:
    def wait() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(helper.COURTESY + 5)
            connection.connect(address)
            return connection.recv(1000).decode()

    assert "bin is not in the group daemon" in json.loads(as_user(OTHER, wait))["error"]


def test_sub_uids_count_as_their_account(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("ann:100000:65536\nno:range\n:\nbob:165536:65536\n\xff\n", "latin-1")
    owners = [helper.owner_of(uid, tmp_path / "subuid") for uid in (99_999, 100_000, 165_535, 165_536, 231_072)]
    assert owners == ["99999", "sub-uids of ann", "sub-uids of ann", "sub-uids of bob", "231072"]
    assert helper.owner_of(5, tmp_path / "none") == "5"


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
