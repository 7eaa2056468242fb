"""What root sees of training.slice, of users' sessions, of who may start jobs, and of containers."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from sparkfleet.audit.probe.look import PATH, Looks, Parameters, Seen, read, run

CGROUPS = Path("/sys/fs/cgroup")
SLICE = "training.slice"
PROPERTIES = (
    "Id,LoadState,ActiveState,UnitFileState,MemoryMax,MemorySwapMax,TasksMax,FragmentPath,DropInPaths,NeedDaemonReload"
)
LIMITS = ("memory.max", "memory.swap.max", "pids.max")
MOST_USERS = 200


def units(parameters: Parameters) -> Mapping[str, Seen]:
    """The slice and the launcher's socket as PID 1 holds them, and the slice's limits as the kernel has them."""
    names = (SLICE, "sparkfleet-launcher.socket")
    shown = run(("systemctl", "show", "-p", PROPERTIES, "--", *names), shown=f"systemctl show {' '.join(names)}")
    command = f"cd /sys/fs/cgroup/{SLICE} && grep . {' '.join(LIMITS)}"
    if not (CGROUPS / SLICE).is_dir():
        return {"slice_units": shown, "slice_limits": Seen(command, "no cgroup: nothing runs in it\n")}
    lines = [f"{name} {read(str(CGROUPS / SLICE / name)).output.strip() or 'none'}" for name in LIMITS]
    return {"slice_units": shown, "slice_limits": Seen(command, "\n".join(lines) + "\n")}


def members(group: str) -> Iterator[pwd.struct_passwd]:
    """The users of a group, as NSS knows them; by their first group where NSS lists users."""
    entry = grp.getgrnam(group)
    by_first = {user.pw_name for user in pwd.getpwall() if user.pw_gid == entry.gr_gid}
    for name in sorted({*entry.gr_mem, *by_first})[:MOST_USERS]:
        try:
            yield pwd.getpwnam(name)
        except KeyError:
            continue  # named in the group, and of no account any more


def groups_of(user: pwd.struct_passwd) -> str:
    found = []
    for gid in os.getgrouplist(user.pw_name, user.pw_gid):
        try:
            found.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            found.append(str(gid))
    return ",".join(sorted(found))


def people(parameters: Parameters) -> Mapping[str, Seen]:
    """`NAME UID GROUPS` (tabs between) of everybody who may start jobs."""
    group = parameters["training_group"]
    command = f"getent group {group}; id NAME"
    try:
        found = list(members(group))
    except KeyError:
        return {"training_people": Seen(command, "no such group\n")}
    lines = [f"{user.pw_name}\t{user.pw_uid}\t{groups_of(user)}" for user in found]
    return {"training_people": Seen(command, "\n".join([f"{len(lines)} training users", *lines]) + "\n")}


def sessions(parameters: Parameters) -> Mapping[str, Seen]:
    """`NAME UID GROUPS PID1 KERNEL` (tabs) of root, who looks, training users, and whoever has a session now.

    PID1: MemoryMax of the user's slice, with a session or without; KERNEL: memory.max, "-" without a session. For one
    training user without a session the kernel is asked by a service in that slice, which is gone when it ends.
    """
    command = "systemctl show -p MemoryMax user-UID.slice; cat /sys/fs/cgroup/user.slice/user-UID.slice/memory.max"
    uids = {0, int(os.environ.get("SUDO_UID", "0"))}
    uids |= {int(path.name[5:-6]) for path in (CGROUPS / "user.slice").glob("user-[0-9]*.slice")}
    try:
        training = [user.pw_uid for user in members(parameters["training_group"])]
    except KeyError:
        training = []
    ordered = sorted({*uids, *training})[:MOST_USERS]
    names = [f"user-{uid}.slice" for uid in ordered]
    shown = run(("systemctl", "show", "-p", "Id,MemoryMax", "--", *names))
    if shown.rc:
        return {"session_caps": shown._replace(command=command)}
    held = dict(re.findall(r"^Id=(\S+)\nMemoryMax=(\S+)$", _id_first(shown.output), re.MULTILINE))
    absent = [uid for uid in training if not (CGROUPS / "user.slice" / f"user-{uid}.slice").is_dir()]
    lines = [f"{len(ordered)} users", f"user.slice\t-\t-\t-\t{kernel_cap('user.slice')}"]
    for uid, name in zip(ordered, names, strict=True):
        try:
            user = pwd.getpwuid(uid)
            who = f"{user.pw_name}\t{uid}\t{groups_of(user)}"
        except KeyError:
            who = f"{uid}\t{uid}\t"
        cap = started_cap(name) if uid in absent[:1] else kernel_cap(f"user.slice/{name}")
        lines.append(f"{who}\t{held.get(name, '?')}\t{cap}")
    return {"session_caps": Seen(command, "\n".join(lines) + "\n")}


def _id_first(output: str) -> str:
    """systemctl's blocks with Id in front, whatever the order of the release's properties."""
    blocks = [sorted(block.splitlines()) for block in output.strip().split("\n\n")]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def kernel_cap(cgroup: str) -> str:
    path = CGROUPS / cgroup / "memory.max"
    return read(str(path)).output.strip() or "none" if path.parent.is_dir() else "-"


def started_cap(name: str) -> str:
    """memory.max of a slice that is there as long as a service in it."""
    limits = ("-p", "RuntimeMaxSec=15", "-p", "DefaultDependencies=no")
    words = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--slice={name}", *limits)
    answer = run((*words, "cat", str(CGROUPS / "user.slice" / name / "memory.max")))
    return answer.output.strip() or f"unknown: {' '.join(answer.error.split())}"


def jobs(parameters: Parameters) -> Mapping[str, Seen]:
    """Processes of jobs whose oom_score_adj is lower than what jobs are started with: `PID UNIT SCORE NAME`."""
    looked, found = 0, []
    for procs in (CGROUPS / SLICE).glob("spark-job-*.service/**/cgroup.procs"):
        for pid in read(str(procs)).output.split():
            score = read(f"/proc/{pid}/oom_score_adj").output.strip()
            looked += bool(score)
            if score and int(score) < parameters["job_score"]:
                name = read(f"/proc/{pid}/comm").output.strip()
                found.append(f"{pid} {procs.relative_to(CGROUPS / SLICE).parts[0]} {score} {name}")
    command = f"cat /sys/fs/cgroup/{SLICE}/spark-job-*/cgroup.procs; cat /proc/PID/oom_score_adj"
    return {"job_scores": Seen(command, "\n".join([f"{looked} processes of jobs", *found[:50]]) + "\n")}


def docker(parameters: Parameters) -> Mapping[str, Seen]:
    """Where Docker starts containers by its configuration, and where those that run are: `in SLICE NUMBER`."""
    path = "/etc/docker/daemon.json"
    command = f"grep cgroup-parent {path}; systemd-cgls | grep docker-"
    if shutil.which("dockerd", path=PATH) is None:
        return {"docker": Seen(command, "no docker\n")}
    content = read(path)
    if content.rc and Path(path).exists():
        return {"docker": content._replace(command=command)}
    try:
        value = json.loads(content.output or "{}")
        parent = value.get("cgroup-parent", "unset")
    except (ValueError, AttributeError):
        return {"docker": Seen(command, "", 1, f"{path} is no JSON mapping")}
    places: dict[str, int] = {}
    for scope in CGROUPS.glob("*.slice/**/docker-*.scope"):
        place = str(scope.parent.relative_to(CGROUPS))
        places[place] = places.get(place, 0) + 1
    lines = [f"in {place} {count}" for place, count in sorted(places.items())]
    return {"docker": Seen(command, "\n".join([f"cgroup-parent {parent}", *lines]) + "\n")}


LOOKS: dict[str, Looks] = {
    "slice_units": units,
    "training_people": people,
    "session_caps": sessions,
    "job_scores": jobs,
    "docker": docker,
}
