"""Tables of processes as the watchdog reads them, made by hand."""

from __future__ import annotations

from sparkhost.watchdog.cgroup import Charge
from sparkhost.watchdog.model import Candidate
from sparkhost.watchdog.process import Process
from sparkhost.watchdog.work import Preferences, candidates

HEX = "0123456789abcdef" * 4
POD = "pod0a1b2c3d-0000-1111-2222-333344445555"
SLURM = "/system.slice/spark1_slurmstepd.scope"
LOGIN = "/user.slice/user-1000.slice"
MANAGER = f"{LOGIN}/user@1000.service"
SESSION = "/user.slice/user-1000.slice/session-3.scope"


def process(pid: int, parent: int, size: int = 0, **rest: object) -> Process:
    values: dict[str, object] = {
        "pid": pid, "start": pid * 10, "parent": parent, "session": 1, "terminal": 0, "name": "python3", "owner": 1000,
        "cgroup": SESSION, "anonymous": size, "shared": 0, **rest,
    }  # fmt: skip
    return Process(**values)  # type: ignore[arg-type]


def shell(pid: int, parent: int, size: int = 0, **rest: object) -> Process:
    return process(pid, parent, size, session=pid, terminal=34816 + pid, name="bash", **rest)


def listed(*processes: Process, charges: dict[str, Charge] | None = None, **rest: object) -> list[Candidate]:
    return list(candidates(processes, {}, charges or {}, Preferences(), **rest))  # type: ignore[arg-type]
