"""The main process of a job's unit: gets the command from the launcher, runs it, and tells how it ended.

Runs as the user, in the job's cgroup, with an environment that is systemd's own. Standard input and output are the
launcher's socket. It stays beside the command, because memory.peak goes away with the cgroup.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import struct
import sys
import termios

from sparkhost.base.cgroups import cgroup_of
from sparkhost.launcher import channel as messages
from sparkhost.launcher.channel import Broken, raw

# Every job waits for what is imported here. So: nothing that is written in Python but os, no pathlib, no contextlib,
# and the C modules below socket and signal, whose enum alone takes a fifth of a start of Python.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from typing import Any
else:
    import _signal as signal
    import _socket as socket

HELLO_TIMEOUT = 30.0
# What a launcher may have the stub send on. Not KILL and STOP: those are for systemd.
FORWARDED = {
    int(s)
    for s in (
        signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
        signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP,
    )
}  # fmt: skip
LIMITS = {name: value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def lowered(wanted: tuple[int, int], ours: tuple[int, int]) -> tuple[int, int]:
    """The caller's soft and hard limit, as far as the unit allows them. RLIM_INFINITY is the highest."""

    def order(value: int) -> float:
        return float("inf") if value == resource.RLIM_INFINITY else value

    hard = min(wanted[1], ours[1], key=order)
    return min(wanted[0], hard, key=order), hard


def set_limits(wanted: dict[str, list[int]]) -> None:
    for name, (soft, hard) in wanted.items():
        if name in LIMITS:
            resource.setrlimit(LIMITS[name], lowered((soft, hard), resource.getrlimit(LIMITS[name])))


def enter(directory: bytes, logical: bytes | None, device: int, inode: int) -> None:
    """Goes to the caller's working directory, by the name that its shell has for it where that leads there too.

    Raises:
        OSError: it is not there for this job (below /dev/shm, say, which each job has for itself).
    """
    for path in filter(None, [logical, directory]):
        try:
            status = os.stat(path)  # noqa: PTH116 - bytes, whatever the locale
            if (status.st_dev, status.st_ino) == (device, inode):
                os.chdir(path)
                return
        except OSError:
            continue
    raise OSError(errno.ENOENT, "not the same directory inside the job", os.fsdecode(directory))


def run_command(job: dict[str, Any], fds: list[int], report: int) -> None:
    """Becomes the command; in the child. Does not return. What goes wrong is written to `report`."""
    stage = "start"
    status = 1
    try:
        os.setsid()
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                try:
                    signal.signal(number, signal.SIG_IGN if number in job["ignored"] else signal.SIG_DFL)
                except (OSError, ValueError):
                    continue  # the C library keeps it for itself
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if len(fds) > 3:
            fcntl.ioctl(fds[3], termios.TIOCSCTTY, 0)
        # First out of the way of 0, 1 and 2: they may be among each other's targets.
        for target, source in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in fds[:3]]):
            os.dup2(source, target, inheritable=True)
        stage = "enter the working directory"
        enter(raw(job["directory"]), raw(job["logical"]) if job["logical"] else None, *job["directory_id"])
        stage = "set the limits"
        set_limits(job["limits"])
        os.umask(job["umask"])
        stage = f"run {job['argv'][0]}"
        environment = {raw(name): raw(value) for name, value in job["environment"]}
        for name in ("INVOCATION_ID", "SYSTEMD_EXEC_PID"):
            if name in os.environ:
                environment[name.encode()] = os.environ[name].encode()
        argv = [raw(argument) for argument in job["argv"]]
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        status = {errno.ENOENT: NOT_FOUND, errno.EACCES: NOT_EXECUTABLE}.get(error.errno or 0, NOT_EXECUTABLE)
        where = "" if stage.startswith("run") else f": {os.fsdecode(error.filename or '')}"
        os.write(report, messages.raw(f"cannot {stage}{where}: {error.strerror}")[:2000])
    except Exception as error:  # the child must never go on as a second stub
        os.write(report, f"cannot {stage}: {type(error).__name__}: {error}".encode(errors="replace")[:2000])
    finally:
        os._exit(status)


def peak(root: str = "/sys/fs/cgroup") -> int | None:
    """memory.peak of this process's cgroup in bytes (cgroup v2, Linux 5.19), or None."""
    try:
        with open(f"{root}{cgroup_of(os.getpid()) or ''}/memory.peak", encoding="ascii") as stream:  # noqa: PTH123
            return int(stream.read())
    except (OSError, ValueError):
        return None


def exit_code(status: int) -> int:
    """As a shell has it: 128+n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def attend(channel: socket.socket, uid: int, child: int, detached: bool) -> int:
    """Sends signals on until the command ends; returns its status (wait(2))."""
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not detached:
        poll.register(channel, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if pidfd in ready:
            return os.waitpid(child, 0)[1]
        try:
            data, _ = messages.receive(channel, uid)
        except OSError:
            data = b""
        if not data:
            # The launcher is gone, as a terminal goes: hang up. Who ignores that goes on (nohup(1)).
            poll.unregister(channel)
            signals = [int(signal.SIGHUP), int(signal.SIGCONT)]
        else:
            number = messages.expect_mapping(data).get("signal")
            signals = [number] if type(number) is int and number in FORWARDED else []
        for signal_ in signals:
            try:
                os.killpg(child, signal_)
            except (ProcessLookupError, PermissionError):
                continue


def serve(channel: socket.socket) -> int:
    """Runs one job; returns the exit code of the unit."""
    uid = os.getuid()
    maker = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if maker != uid:
        raise Broken(f"the socket is of user {maker}")
    channel.setsockopt(socket.SOL_SOCKET, messages.PASSCRED, 1)
    channel.settimeout(HELLO_TIMEOUT)
    data, (*fds,) = messages.receive(channel, uid)
    if not data or len(fds) not in (4, 5):
        raise Broken("no job came from the launcher")
    channel.settimeout(None)
    detached = messages.expect_mapping(data).get("detached") is True
    job = messages.read_memfd(fds.pop(0))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        # They reach the command itself; the stub stays to tell how it ends.
        signal.signal(number, signal.SIG_IGN)
    failure, report = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        run_command(job, fds, report)
    os.close(report)
    for descriptor in fds:
        os.close(descriptor)
    with os.fdopen(failure, "rb") as stream:
        problem = stream.read()  # empty as soon as the command runs
    if problem:
        code = exit_code(os.waitpid(child, 0)[1])
        tell(channel, {"failed": messages.text(problem), "code": code})
        return code
    tell(channel, {"started": os.environ.get("INVOCATION_ID", "")})
    code = exit_code(attend(channel, uid, child, detached))
    tell(channel, {"ended": code, "peak": peak()})
    return code


def tell(channel: socket.socket, value: dict[str, Any]) -> None:
    """Tells the launcher, if it is still there."""
    try:
        messages.send(channel, value)
    except OSError:
        return


def main() -> int:
    try:
        return serve(socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10)))
    except (Broken, OSError, KeyError, TypeError, ValueError) as error:
        print(f"spark-job: {error}", file=sys.stderr)
        return 1
