"""How the controls of training.slice are judged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sparkfleet.audit.controls.kit import (
    MIB,
    blocks,
    counted,
    in_bytes,
    judged,
    listed,
    malformed,
    not_applicable,
    total_memory,
)
from sparkfleet.audit.model import Evidence, Judgement, NoEvidence
from sparkfleet.settings import HostSettings

SLICE, SOCKET = "training.slice", "sparkfleet-launcher.socket"
LARGEST_PAGE = 64 * 1024
"""The kernel rounds memory.max down to whole pages."""
LIKE_ROOT = frozenset(("docker", "sudo", "lxd", "incus-admin", "wheel", "admin", "disk", "libvirt"))
"""Groups whose members can become root, whatever the fleet file says."""


def unit(evidence: Evidence, name: str) -> Mapping[str, str]:
    """A unit as PID 1 holds it. Raises NoEvidence where the probe did not ask for it."""
    for found in blocks(evidence, "slice_units"):
        if found["Id"] == name:
            return found
    raise NoEvidence(f"systemctl show says nothing about {name}")


def number(text: str) -> int | None:
    """What cgroup files and systemctl print for a limit; None: there is none. Raises NoEvidence on other text."""
    if text in ("max", "infinity"):
        return None
    if not text.isdecimal():
        raise NoEvidence(f"expected a limit, got {text[:60]!r}")
    return int(text)


def limits(evidence: Evidence) -> tuple[str, dict[str, int | None]]:
    """Who was asked, and the slice's limits by the names of cgroup files: the kernel's, PID 1's while nothing runs."""
    text = evidence.text("slice_limits")
    found = unit(evidence, SLICE)
    names = {"memory.max": "MemoryMax", "memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax"}
    if text.startswith("no cgroup"):
        return "systemd, as nothing runs in it,", {key: number(found.get(name, "")) for key, name in names.items()}
    lines = dict(re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE))
    if set(lines) != set(names):
        raise malformed(evidence, "slice_limits")
    return "the kernel", {key: number(value) for key, value in lines.items()}


def size(count: int | None) -> str:
    return "no limit" if count is None else f"{count // MIB} MiB"


def cap(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = in_bytes(settings.training_slice.memory_max, evidence)
    who, found = limits(evidence)
    value = found["memory.max"]
    holds = value is not None and wanted - LARGEST_PAGE < value <= wanted
    return judged(holds, f"memory.max {size(wanted)} for {SLICE}", f"{who} has {size(value)}")


def swap_and_tasks(evidence: Evidence, settings: HostSettings) -> Judgement:
    tasks = settings.training_slice.tasks_max
    who, found = limits(evidence)
    swap, pids = found["memory.swap.max"], found["pids.max"]
    saw = f"{who} has {size(swap)} of swap, {'no limit' if pids is None else pids} tasks"
    return judged(
        swap == 0 and pids is not None and pids <= tasks, f"no swap, and at most {tasks} tasks for {SLICE}", saw
    )


def fits(evidence: Evidence, settings: HostSettings) -> Judgement:
    reserve = in_bytes(settings.training_slice.reserve, evidence)
    room = total_memory(evidence) - reserve
    _, found = limits(evidence)
    value = found["memory.max"]
    wanted = f"memory.max of {SLICE} at most {size(max(0, room))}, which leaves {size(reserve)} for the rest"
    return judged(value is not None and value <= room, wanted, size(value))


class Session(NamedTuple):
    """A user, and the cap of that user's sessions: PID 1's, and the kernel's where there is one."""

    name: str
    uid: str
    groups: tuple[str, ...]
    held: int | None
    kernel: int | None
    is_open: bool


def sessions(evidence: Evidence) -> Iterator[Session]:
    """Raises NoEvidence where a line is something else."""
    for line in counted(evidence, "session_caps", "users")[1:]:
        words = line.split("\t")
        if len(words) != 5 or not words[1].isdecimal():
            raise malformed(evidence, "session_caps")
        name, uid, groups, held, kernel = words
        is_open = kernel != "-"
        yield Session(name, uid, tuple(groups.split(",")), number(held), number(kernel) if is_open else None, is_open)


def is_exempt(session: Session, evidence: Evidence, settings: HostSettings) -> bool:
    """Root, admins by the fleet file, and who looks, who is who deploys."""
    looks = evidence.text("session").split()
    if len(looks) != 3:
        raise malformed(evidence, "session")
    measure = settings.training_slice
    by_name = {*measure.admins, looks[1]}
    return session.uid == "0" or session.name in by_name or bool(set(session.groups) & set(measure.admin_groups))


def sessions_capped(evidence: Evidence, settings: HostSettings) -> Judgement:
    most = in_bytes(settings.training_slice.session_memory_max, evidence)
    wanted = f"at most {size(most)} for the sessions of everybody who is no admin"
    wrong, capped = [], []
    for session in sessions(evidence):
        if is_exempt(session, evidence, settings):
            continue
        capped.append(session.name)
        if session.held is None or session.held > most:
            wrong.append(f"{session.name}: systemd has {size(session.held)}")
        elif session.is_open and (session.kernel is None or session.kernel > most):
            wrong.append(f"{session.name}: the kernel has {size(session.kernel)}")
    if (given := settings.training_slice.sessions_memory_max) is not None:
        total = in_bytes(given, evidence)
        found = number(counted(evidence, "session_caps", "users")[0].split("\t")[-1])
        if found is None or found > total:
            wrong.append(f"all sessions together (user.slice): {size(found)}, not {size(total)}")
    return judged(not wrong, wanted, listed(wrong) or (f"capped: {listed(capped)}" if capped else "no such user"))


def admins_free(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no cap for the sessions of root and admins"
    exempt = [session for session in sessions(evidence) if is_exempt(session, evidence, settings)]
    if not exempt:
        raise malformed(evidence, "session_caps")
    wrong = []
    for session in exempt:
        if session.held is not None or session.kernel is not None:
            wrong.append(f"{session.name}: {size(session.held if session.kernel is None else session.kernel)}")
    return judged(not wrong, wanted, listed(wrong) or f"not capped: {listed([s.name for s in exempt])}")


def answers(evidence: Evidence, settings: HostSettings) -> Judgement:
    """The question is one that must be refused: whoever asks has no job of that id."""
    wanted = "the launcher's helper answers a user, and refuses to end a job that is not theirs"
    text = evidence.text("launcher").strip()
    if text.startswith("no answer"):
        return judged(False, wanted, text)
    try:
        told = json.loads(text)
        return judged(told["ok"] is False and bool(told["error"]), wanted, str(told.get("error", text)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise malformed(evidence, "launcher") from error


def lasts(evidence: Evidence, settings: HostSettings) -> Judgement:
    """What PID 1 holds is what it will read at boot."""
    found, socket = unit(evidence, SLICE), unit(evidence, SOCKET)
    state, reload = socket.get("UnitFileState"), found.get("NeedDaemonReload")
    if state is None or reload not in ("yes", "no"):
        raise NoEvidence("systemctl show prints neither UnitFileState nor NeedDaemonReload")
    wrong = []
    if state != "enabled":
        wrong.append(f"{SOCKET} is {state or 'not there'}")
    if not found.get("FragmentPath", "").startswith(("/etc/", "/usr/", "/lib/")):
        wrong.append(f"{SLICE} has no file that a boot would read")
    if reload == "yes":
        wrong.append(f"{SLICE} has changes that systemd has not read")
    wrong += [path for path in found.get("DropInPaths", "").split() if path.startswith("/run/")]
    wanted = f"{SOCKET} enabled, {SLICE} from a file, no drop-in below /run"
    return judged(not wrong, wanted, listed(wrong) or "so it is")


def nobody_like_root(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no training user in a group that equals root"
    measure = settings.training_slice
    if evidence.text("training_people").strip() == "no such group":
        return judged(False, wanted, f"there is no group {measure.group}")
    powerful = {*LIKE_ROOT, *measure.admin_groups}
    wrong, seen = [], []
    for line in counted(evidence, "training_people", "training users"):
        words = line.split("\t")
        if len(words) != 3 or not words[1].isdecimal():
            raise malformed(evidence, "training_people")
        name, uid, groups = words
        seen.append(name)
        if found := sorted(powerful & set(groups.split(","))):
            wrong.append(f"{name} is in {', '.join(found)}")
        elif uid == "0" or name in measure.admins:
            wrong.append(f"{name} is {'root' if uid == '0' else 'an admin by the fleet file'}")
    return judged(not wrong, wanted, listed(wrong) or f"{len(seen)} users, none is")


def jobs_killed_first(evidence: Evidence, settings: HostSettings) -> Judgement:
    found = counted(evidence, "job_scores", "processes of jobs")
    looked = evidence.text("job_scores").partition(" ")[0]
    return judged(not found, "oom_score_adj 500 or more in every job", listed(found) or f"{looked} processes looked at")


def containers(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"Docker starts containers under {SLICE}, and none runs in system.slice"
    text = evidence.text("docker").strip()
    if text == "no docker":
        return not_applicable(wanted, "Docker is not installed")
    if settings.training_slice.docker == "keep":
        return not_applicable(wanted, "training_slice.docker is keep in the fleet file")
    parent, *places = text.split("\n")
    if not parent.startswith("cgroup-parent ") or not all(re.fullmatch(r"in \S+ \d+", line) for line in places):
        raise malformed(evidence, "docker")
    stray = [line.removeprefix("in ") for line in places if line.startswith("in system.slice ")]
    return judged(parent == f"cgroup-parent {SLICE}" and not stray, wanted, listed([parent, *stray]))
