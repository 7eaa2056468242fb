"""What the root helper does for one request, in a process of the request's own. Every mistake is one line."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pwd
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from sparkhost.launcher import admission
from sparkhost.launcher.admission import Late, Ticket
from sparkhost.launcher.bus import Bus, BusError
from sparkhost.launcher.config import Config
from sparkhost.launcher.request import BadRequest, DropCache, Leave, Start, Stop, parse
from sparkhost.launcher.unit import SLICE, TooLarge, promise, properties, unit_name

RUN = Path("/run/sparkfleet")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
ENDS_KEPT = 200
"""Records of how jobs ended that are kept of one user; as many as `spark-run ps --all` lists."""
STARTED_WITHIN = 5.0
"""Seconds that PID 1 is given for a job's cgroup; the helper lets no other job start meanwhile."""


class Denied(Exception):
    """The caller may not do this, or not now. One line, with the remedy. `more`: what programs are told."""

    def __init__(self, line: str, **more: Any) -> None:
        super().__init__(line)
        self.more = more


class Unknown(Denied):
    """The caller has no account: a sub-uid, say. It does not get a moment of anybody's time."""


def peer_of(connection: socket.socket) -> int:
    """The uid at the other end, by SO_PEERCRED (unix(7)); for a socket pair, that of who made it."""
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def authorize(uid: int, config: Config) -> None:
    """Lets members of the group through, as NSS has them now: local or of a directory, whatever the session was given.

    Raises:
        Denied: root, a user that is mapped from elsewhere, or no member; Unknown: no account.
    """
    if uid in (0, 65534, 2**32 - 1):
        raise Denied("jobs run as a user, never as root: run spark-run without sudo")
    try:
        user = pwd.getpwuid(uid)
        group = grp.getgrnam(config.group).gr_gid
    except KeyError as error:
        raise Unknown(f"the user {uid} or the group {config.group} is not known on this host: ask its admin") from error
    if group not in os.getgrouplist(user.pw_name, user.pw_gid):
        raise Denied(f"{user.pw_name} is not in the group {config.group}: ask the admin of this host")


def jobs_of(uid: int) -> list[str]:
    """Names of a user's units that have a cgroup now."""
    return [path.name for path in (admission.CGROUPS / SLICE).glob(f"spark-job-{uid}-*.service")]


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


def ends_of(uid: int) -> Path:
    """Where the unit's end writes, as root, how jobs of this user ended. All of it is root's: no user fills /run."""
    directory = RUN / "ends" / str(uid)
    for path in (RUN, RUN / "ends", directory):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            path.chmod(0o755)
    old = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for path in old[: max(0, len(old) - ENDS_KEPT)]:
        path.unlink()
    return directory


def start(request: Start, fds: list[int], uid: int, config: Config, held: contextlib.ExitStack) -> dict[str, Any]:
    """Starts a job if its promise fits, or may be warned of. `held`: until it is closed, no other job starts.

    Raises:
        Denied: not now, with the place in the queue if the caller waits; BadRequest, TooLarge, BusError.
    """
    passed = launcher_socket(fds, uid)
    id_ = os.urandom(4).hex()
    name = unit_name(uid, id_)
    wanted = properties(request, config, uid, id_)
    RUN.mkdir(exist_ok=True)
    held.enter_context(admission.lock(RUN))
    ends = ends_of(uid)
    warning = admit(request, uid, config)
    bus = Bus()
    try:
        bus.start_unit(name, wanted, [passed])
    finally:
        bus.close()
    held.callback(admission.await_cgroup, name, ends / id_, STARTED_WITHIN)
    told = {"id": id_, "unit": name, "memory": promise(request, config)}
    return {**told, "warning": warning} if warning else told


def admit(request: Start, uid: int, config: Config) -> str:
    """Lets a job through, with a warning where its promise does not fit and the host's setting is to say so only.

    Raises:
        Denied: it is not its turn.
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    before = admission.queue(RUN, now)
    mine = next((t for t in before if (t.id, t.uid) == (request.ticket, uid)), None)
    ahead = before[: before.index(mine)] if mine else before
    running = len(jobs_of(uid))
    if running >= config.jobs_max:
        raise Denied(f"{running} jobs of yours are running, no more are allowed: spark-run ps, spark-run stop ID")
    room = admission.look(config)
    lack = room.lacks(promise(request, config), config.memory_max)
    # Nobody's promise is broken by a job that names no size and takes what there is.
    alone = request.memory is None and not room.jobs and not ahead
    reason = "" if alone else lack or (f"{len(ahead)} jobs wait for room" if ahead else "")
    others = [ticket for ticket in before if ticket != mine]
    if reason and (request.wait or config.admission == "wait"):
        if not mine and sum(t.uid == uid for t in others) + running >= config.jobs_max:
            raise Denied(f"{config.jobs_max} jobs of yours run or wait, no more are allowed: spark-run ps")
        if len(others) >= admission.PLACES:
            raise Denied(f"{len(others)} jobs wait already: try again later")
        place = Ticket(mine.id if mine else os.urandom(4).hex(), uid, now)
        admission.write_queue(RUN, [*others[: len(ahead)], place, *others[len(ahead) :]])
        raise Denied(reason, wait={"ticket": place.id, "place": f"{len(ahead) + 1} of {len(others) + 1}"})
    if reason and config.admission == "refuse":
        raise Denied(f"{reason}: ask for less (--memory), or wait (--wait)")
    if mine:
        admission.write_queue(RUN, others)
    return f"{lack}: it may be ended when memory is short (--wait waits for room)" if lack else ""


def leave(request: Leave, uid: int) -> dict[str, Any]:
    with admission.lock(RUN):
        before = admission.queue(RUN, time.clock_gettime(time.CLOCK_BOOTTIME))
        admission.write_queue(RUN, [t for t in before if (t.id, t.uid) != (request.ticket, uid)])
    return {}


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


def drop_cache(uid: int, config: Config) -> dict[str, Any]:
    """Has the kernel give back clean page cache (proc_sys_vm(5), drop_caches 1), at most once in a while for all, and
    less often for one user.
    """
    RUN.mkdir(exist_ok=True)
    descriptor = os.open(RUN / "cache-dropped", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        now = time.monotonic()
        last = {user: when for user, when in _times(stream.read(1 << 16)).items() if now - when >= 0}
        for when, every, who in (
            (max(last.values(), default=None), config.drop_cache_every, "was dropped a moment ago"),
            (last.get(str(uid)), config.drop_cache_every_user, "was dropped for you a while ago"),
        ):
            if when is not None and now - when < every:
                raise Denied(f"the page cache {who}: try again in {every - (now - when):.0f} s")
        kept = {user: when for user, when in last.items() if now - when < config.drop_cache_every_user}
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps({**kept, str(uid): now}))
        stream.flush()
        DROP_CACHES.write_text("1\n")
    return {}


def _times(text: str) -> dict[str, float]:
    """User → when, in seconds of the monotonic clock; nothing where the file says nothing of the kind."""
    try:
        return {str(user): float(when) for user, when in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}


def answer(data: bytes, fds: list[int], uid: int, config: Config, held: contextlib.ExitStack) -> dict[str, Any]:
    """What is told to a caller who has been let through. `held`: closed after the caller has been told."""
    try:
        request = parse(data)
        match request:
            case Start():
                result = start(request, fds, uid, config, held)
            case Stop():
                result = stop(request, uid)
            case Leave():
                result = leave(request, uid)
            case DropCache():
                result = drop_cache(uid, config)
    except Denied as error:
        if "wait" not in error.more:
            print(f"uid {uid}: refused: {error}", file=sys.stderr)
        return {"ok": False, "error": str(error), **error.more}
    except Late:
        return {"ok": False, "error": "other jobs are being started: try again", "busy": True}
    except (BadRequest, TooLarge, BusError) as error:
        print(f"uid {uid}: refused: {error}", file=sys.stderr)
        return {"ok": False, "error": str(error)}
    except OSError as error:
        print(f"uid {uid}: {error}", file=sys.stderr)
        return {"ok": False, "error": f"the helper failed: {error.strerror}: ask the admin of this host"}
    print(f"uid {uid}: {type(request).__name__} {result.get('id', '')}", file=sys.stderr)
    return {"ok": True, **result}
