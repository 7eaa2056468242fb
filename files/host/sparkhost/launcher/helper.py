"""The root helper: socket-activated, answers one request a connection, knows who asks from the kernel alone.

Each connection has a process of its own: what a caller sends may hang whoever receives it (a file descriptor of a FUSE
file can block on close(2)), and that is then the caller's own connection, ended by its deadline, and nobody else's.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pwd
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparkhost.launcher import config as configuration
from sparkhost.launcher.bus import Bus, BusError
from sparkhost.launcher.config import BadConfig, Config
from sparkhost.launcher.request import LONGEST, BadRequest, DropCache, Start, Stop, parse
from sparkhost.launcher.unit import SLICE, TooLarge, properties, unit_name

CGROUPS = Path("/sys/fs/cgroup")
RUN = Path("/run/sparkfleet")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
IDLE = 120.0
"""Seconds without a request after which the helper ends; systemd holds the socket and starts it again."""
DEADLINE = 30.0
"""Seconds that a connection may take, answers of PID 1 and of a directory service included."""
CONNECTIONS, PER_USER = 32, 4
CURRENT = "/opt/sparkfleet/lib/launcher/current"
"""The link to the release of the launcher that is in force."""
LISTENER = 3
"""The first passed file descriptor (sd_listen_fds(3))."""


class Denied(Exception):
    """The caller may not do this, or not now. One line, with the remedy."""


def peer_of(connection: socket.socket) -> int:
    """The uid at the other end, by SO_PEERCRED (unix(7)); for a socket pair, that of who made it."""
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def authorize(uid: int, config: Config) -> None:
    """Lets members of the group through, as NSS has them now: local or of a directory, whatever the session was given.

    Raises:
        Denied: root, a user that is mapped from elsewhere, or no member.
    """
    if uid in (0, 65534, 2**32 - 1):
        raise Denied("jobs run as a user, never as root: run spark-run without sudo")
    try:
        user = pwd.getpwuid(uid)
        group = grp.getgrnam(config.group).gr_gid
    except KeyError as error:
        raise Denied(f"the user {uid} or the group {config.group} is not known on this host: ask its admin") from error
    if group not in os.getgrouplist(user.pw_name, user.pw_gid):
        raise Denied(f"{user.pw_name} is not in the group {config.group}: ask the admin of this host")


def jobs_of(uid: int) -> list[str]:
    """Names of a user's units that have a cgroup now."""
    return [path.name for path in (CGROUPS / SLICE).glob(f"spark-job-{uid}-*.service")]


def launcher_socket(fds: list[int], uid: int) -> int:
    """The one file descriptor that a start brings: a connected unix socket that the caller itself has made.

    getsockopt(2) asks no file system, unlike fstat(2): a hostile FUSE file cannot hold it up.

    Raises:
        BadRequest: anything else.
    """
    if len(fds) != 1:
        raise BadRequest("start takes one socket")
    try:
        with socket.socket(fileno=os.dup(fds[0])) as passed:
            domain, kind = passed.family, passed.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            made_by = peer_of(passed)
    except OSError as error:
        raise BadRequest("start takes one socket") from error
    if (domain, kind) != (socket.AF_UNIX, socket.SOCK_SEQPACKET) or made_by != uid:
        raise BadRequest("start takes a SOCK_SEQPACKET pair of the caller's own")
    return fds[0]


def job_directory(uid: int) -> None:
    """Where the user's jobs leave how they ended. Its parent is root's, so nothing can be put in its place."""
    parent = RUN / "jobs"
    for path in (RUN, parent):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            path.chmod(0o755)
    with contextlib.suppress(FileExistsError):
        directory = parent / str(uid)
        directory.mkdir(mode=0o700)
        os.chown(directory, uid, -1, follow_symlinks=False)


def start(request: Start, fds: list[int], uid: int, config: Config) -> dict[str, Any]:
    passed = launcher_socket(fds, uid)
    running = jobs_of(uid)
    if len(running) >= config.jobs_max:
        raise Denied(f"{len(running)} jobs of yours are running, no more are allowed: spark-run ps, spark-run stop ID")
    id_ = os.urandom(4).hex()
    name = unit_name(uid, id_)
    wanted = properties(request, config, uid, id_)
    job_directory(uid)
    bus = Bus()
    try:
        bus.start_unit(name, wanted, [passed])
    finally:
        bus.close()
    return {"id": id_, "unit": name, "memory": request.memory or config.memory_max}


def stop(request: Stop, uid: int) -> dict[str, Any]:
    name = unit_name(uid, request.id)
    if name not in jobs_of(uid):
        raise Denied(f"no job {request.id} of yours is running: spark-run ps lists them")
    bus = Bus()
    try:
        bus.stop_unit(name)
    finally:
        bus.close()
    return {"id": request.id}


def drop_cache(config: Config) -> dict[str, Any]:
    """Has the kernel give back clean page cache (proc_sys_vm(5), drop_caches 1), at most once in a while for all."""
    RUN.mkdir(exist_ok=True)
    descriptor = os.open(RUN / "cache-dropped", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        last = stream.read()
        now = time.monotonic()
        if last and 0 <= now - float(last) < config.drop_cache_every:
            wait = config.drop_cache_every - (now - float(last))
            raise Denied(f"the page cache was dropped a moment ago: try again in {wait:.0f} s")
        stream.seek(0)
        stream.truncate()
        stream.write(str(now))
        stream.flush()
        DROP_CACHES.write_text("1\n")
    return {}


def answer(data: bytes, fds: list[int], uid: int, config: Config) -> dict[str, Any]:
    """What is told to the caller; every mistake is one line."""
    try:
        authorize(uid, config)
        request = parse(data)
        match request:
            case Start():
                result = start(request, fds, uid, config)
            case Stop():
                result = stop(request, uid)
            case DropCache():
                result = drop_cache(config)
    except (Denied, BadRequest, TooLarge, BusError) as error:
        print(f"uid {uid}: refused: {error}", file=sys.stderr)
        return {"ok": False, "error": str(error)}
    except OSError as error:
        print(f"uid {uid}: {error}", file=sys.stderr)
        return {"ok": False, "error": f"the helper failed: {error.strerror}: ask the admin of this host"}
    print(f"uid {uid}: {type(request).__name__} {result.get('id', '')}", file=sys.stderr)
    return {"ok": True, **result}


def handle(connection: socket.socket, uid: int) -> None:
    """Answers the one request of a connection."""
    connection.settimeout(5)
    data, fds, flags, _ = socket.recv_fds(connection, LONGEST + 1, 1, socket.MSG_CMSG_CLOEXEC)
    if flags & socket.MSG_CTRUNC:
        data = b""  # more file descriptors than a request has
    try:
        told = answer(data, fds, uid, configuration.read())
    except BadConfig as error:
        told = {"ok": False, "error": str(error)}
    connection.send(json.dumps(told).encode())


class Child:
    """A connection's process, and the moment (time.monotonic) at which it is ended."""

    def __init__(self, pid: int, uid: int, until: float) -> None:
        self.pid, self.uid, self.until = pid, uid, until


def serve(
    listener: socket.socket,
    idle: float = IDLE,
    deadline: float = DEADLINE,
    replaced: Callable[[], bool] = lambda: False,
) -> None:
    """Serves until nobody has asked for `idle` seconds. The listening process never receives what callers send.

    `replaced`: whether a deploy has installed another helper. Then this one finishes what it has, and ends: systemd
    starts the new one for whoever waits.
    """
    children: dict[int, Child] = {}  # by pidfd
    listener.setblocking(False)
    while True:
        retiring = replaced()
        if retiring and not children:
            return
        poll = select.poll()
        if not retiring:
            poll.register(listener, select.POLLIN)
        for pidfd in children:
            poll.register(pidfd, select.POLLIN)
        now = time.monotonic()
        wait = min((child.until - now for child in children.values()), default=idle)
        events = poll.poll(max(0, wait) * 1000)
        if not events and not children:
            return
        for pidfd, child in list(children.items()):
            if time.monotonic() >= child.until:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                child.until += deadline  # it may not die at once: asked again later
            if os.waitpid(child.pid, os.WNOHANG)[0]:
                os.close(pidfd)
                del children[pidfd]
        if retiring or replaced():
            continue
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            accept(listener, children, deadline)


def accept(listener: socket.socket, children: dict[int, Child], deadline: float) -> None:
    """Takes one connection and gives it a process, unless there are too many."""
    connection, _ = listener.accept()
    with connection:
        uid = peer_of(connection)
        of_user = sum(child.uid == uid for child in children.values())
        if len(children) >= CONNECTIONS or of_user >= PER_USER:
            told = {"ok": False, "error": "too many requests at a time: try again"}
            with contextlib.suppress(OSError):
                connection.setblocking(False)
                connection.send(json.dumps(told).encode())
            return
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                listener.close()
                handle(connection, uid)
                status = 0
            except OSError as error:
                print(f"uid {uid}: {error}", file=sys.stderr)
            finally:
                os._exit(status)
        children[os.pidfd_open(pid)] = Child(pid, uid, time.monotonic() + deadline)


def main() -> int:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        print("spark-helper: is started by sparkfleet-launcher.socket only", file=sys.stderr)
        return 2
    os.umask(0o022)
    ours = os.path.realpath(CURRENT)
    with socket.socket(fileno=LISTENER) as listener:
        serve(listener, replaced=lambda: os.path.realpath(CURRENT) != ours)
    return 0
