"""The unit of a job: fixed but for its size, time and name. A pure function, so that it can be attacked in tests.

Names are those of org.freedesktop.systemd1(5), `StartTransientUnit`; values go there typed, so there is no text that
could be read as an option, a specifier or a second line.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sparkhost.launcher.config import Config
from sparkhost.launcher.request import Start

SLICE = "training.slice"
INFINITY = 2**64 - 1
MICROSECONDS = 1_000_000
STUB = "/opt/sparkfleet/bin/spark-job"
"""The entry point of `stub`; it takes no arguments."""
END = "/opt/sparkfleet/bin/spark-job-end"
"""The shell script that tells how a job ended; it gets uid and id."""
STOP_TIMEOUT = 30
"""Seconds from SIGTERM to SIGKILL: time to write a checkpoint."""
NOFILE = 1_048_576

Property = tuple[str, str, Any]
"""Name, D-Bus signature, value."""


class TooLarge(Exception):
    """More than the slice has. One line with the figures."""


class Descriptor(NamedTuple):
    """A place in the message's array of file descriptors (D-Bus type `h`)."""

    place: int


def unit_name(uid: int, id_: str) -> str:
    """The uid is part of the name: nobody can name another user's job."""
    return f"spark-job-{uid}-{id_}.service"


def promise(start: Start, config: Config) -> int:
    """What a job promises to stay below, in bytes: its unit's MemoryMax=, which the watchdog reads as well."""
    if start.memory is not None:
        return start.memory
    return min(config.job_memory_default or config.memory_max, config.memory_max)


def properties(start: Start, config: Config, uid: int, id_: str) -> list[Property]:
    """What the unit of this job is.

    Raises:
        TooLarge: the job asks for more memory than the slice has.
    """
    memory = promise(start, config)
    if memory > config.memory_max:
        raise TooLarge(f"memory: asked for {memory} bytes, but training.slice has {config.memory_max} in all")
    memlock = INFINITY if config.memlock is None else config.memlock
    result: list[Property] = [
        ("Description", "s", f"Training job {start.name or id_} of user {uid}"),
        ("Slice", "s", SLICE),
        # By number: names of directories may hold blanks, % or @. systemd looks up groups by it (initgroups(3)).
        ("User", "s", str(uid)),
        ("Type", "s", "exec"),
        ("ExecStart", "a(sasb)", [(STUB, [STUB], False)]),
        # Runs in the job's cgroup however the job ended, and so can still read memory.peak and
        # memory.events. As root, for what it notes lies in a directory of root's: User= is for
        # ExecStart= only. (Not by ExecStopPostEx= and its flag `privileged`: releases of systemd write
        # that into the transient unit under a name that they do not read back at a daemon-reload.)
        ("PermissionsStartOnly", "b", True),
        ("ExecStopPost", "a(sasb)", [(END, [END, str(uid), id_], False)]),
        # The launcher's socket. systemd holds it until the unit is over: end of file means just that.
        ("StandardInputFileDescriptor", "h", Descriptor(0)),
        ("StandardOutputFileDescriptor", "h", Descriptor(0)),
        ("StandardError", "s", "journal"),
        # Killed before anything that makes the host reachable, and as a whole: half a job is of no use.
        ("OOMScoreAdjust", "i", 500),
        ("OOMPolicy", "s", "kill"),
        ("MemoryMax", "t", memory),
        ("MemorySwapMax", "t", 0),
        ("TasksMax", "t", config.tasks_max),
        # Hard limits are the admin's; the stub lowers them to the caller's. Locked memory counts in MemoryMax anyway.
        ("LimitMEMLOCK", "t", memlock),
        ("LimitMEMLOCKSoft", "t", memlock),
        ("LimitNOFILE", "t", NOFILE),
        ("LimitNOFILESoft", "t", NOFILE),
        ("TimeoutStopUSec", "t", STOP_TIMEOUT * MICROSECONDS),
        # A failed job leaves no unit behind.
        ("CollectMode", "s", "inactive-or-failed"),
    ]
    if start.time is not None:
        result.append(("RuntimeMaxUSec", "t", start.time * MICROSECONDS))
    if not start.host_ipc:
        # logind removes a user's shared memory when the last session ends (RemoveIPC=yes, logind.conf(5)). A job has
        # its own, which also goes away with it: nothing leaks when it is killed.
        result.append(("PrivateIPC", "b", True))
        result.append(("TemporaryFileSystem", "a(ss)", [("/dev/shm", f"mode=1777,size={memory}")]))
    return result
