"""Training jobs in a slice of their own, capped and killed first; training users' other processes capped as well.

Why: whatever a training user runs can take all of the memory, and on a Spark that takes the host. `spark-run` starts a
job as a transient service in training.slice (a scope, as is often advised, takes no OOMScoreAdjust=): with a cap, a
limit of processes, killed before everything else and as a whole. What runs outside of it, in SSH sessions, tmux and
cron, is capped by a drop-in for every user's slice, from which admins are excepted; containers of Docker, which are in
nobody's slice, are started under training.slice.

None of that holds CUDA memory: the driver takes it without charging a cgroup. What a job promises counts it: frameworks
are told by variables, promises that do not fit are not started, and the watchdog holds jobs to theirs.
How the launcher works, and what it does not trust: ADR 7.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sparkfleet.settings import TrainingSliceSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.installed import NotInstalled
from sparkhost.base.resource import Resource
from sparkhost.base.service import NoService, NoTree, Service
from sparkhost.base.systemd import UNIT_DIRECTORY
from sparkhost.ssh.protection import NoProgram
from sparkhost.training_slice.caps import CapInForce
from sparkhost.training_slice.docker import DockerParent, NoDockerParent
from sparkhost.training_slice.people import TrainingPeople
from sparkhost.training_slice.slices import CapFile, Exceptions, NoJobs, SliceFits
from tasks.lib.programs import program
from tasks.lib.sizes import on_host, rule
from tasks.lib.templates import render

SLICE = "training.slice"
SLICE_FILE = f"{UNIT_DIRECTORY}/{SLICE}"
SERVING_FILE = f"{UNIT_DIRECTORY}/serving.slice"
# One name for the cap and for the exceptions: that is what makes them exceptions.
CAP_NAME = "50-sparkfleet-training.conf"
CAP = f"{UNIT_DIRECTORY}/user-.slice.d/{CAP_NAME}"
SUM = f"{UNIT_DIRECTORY}/user.slice.d/{CAP_NAME}"
SESSIONS = "user.slice/user-*.slice"
CONFIG = "/etc/sparkfleet/launcher.json"
SOCKET = "sparkfleet-launcher.socket"
UNITS = tuple(f"{UNIT_DIRECTORY}/{name}" for name in (SOCKET, "sparkfleet-launcher.service"))
PROGRAM = "launcher"
BIN, USER_BIN = "/opt/sparkfleet/bin", "/usr/local/bin"
# What users call is on their PATH, which /opt/sparkfleet is not.
PROGRAMS = (
    *(f"{USER_BIN}/{name}" for name in ("spark-run", "spark-top", "spark-preflight")),
    *(f"{BIN}/{name}" for name in ("spark-job", "spark-job-end", "spark-helper")),
)
# Where earlier versions had directories of users below /run, which they could fill.
RETIRED = (NoTree("/run/sparkfleet/jobs"),)
MANAGED = "managed by sparkfleet (measure: training_slice)"


def launcher_config(settings: TrainingSliceSettings) -> str:
    """/etc/sparkfleet/launcher.json: sizes in bytes."""
    sizes = {
        name: getattr(settings, name) for name in ("memory_max", "reserve", "need", "job_memory_default", "memlock")
    }
    values = {
        "_": f"{MANAGED}; " + "; ".join(f"{name}: {rule(size)}" for name, size in sizes.items() if size is not None),
        "group": settings.group,
        **{name: None if size is None else on_host(size) for name, size in sizes.items()},
        "admission": settings.admission,
        "over_promise": settings.over_promise,
        "tasks_max": settings.job_tasks_max,
        "jobs_max": settings.jobs_max,
        "preflight": settings.preflight,
    }
    return json.dumps(values, indent=2) + "\n"


def caps(settings: TrainingSliceSettings) -> Sequence[Resource]:
    """The slices' files, and what shows that the kernel has them."""
    slice_unit = render(
        "training_slice/training.slice",
        memory_max=on_host(settings.memory_max),
        rule=rule(settings.memory_max),
        tasks_max=settings.tasks_max,
        cpu_weight=settings.cpu_weight,
        io_weight=settings.io_weight,
    )
    own, session, total = (
        on_host(settings.memory_max),
        on_host(settings.session_memory_max),
        settings.sessions_memory_max,
    )
    serves = settings.serving_memory_max
    serving = render(
        "training_slice/serving.slice",
        memory_max=None if serves is None else on_host(serves),
        rule=None if serves is None else rule(serves),
    )
    cap = render("training_slice/user-cap.conf", memory_max=session, rule=rule(settings.session_memory_max))
    key = "training_slice"
    return (
        CapFile(SLICE_FILE, slice_unit, slices=SLICE, memory_max=own, setting=f"{key}.memory_max"),
        File(SERVING_FILE, serving),
        # Before the cap, so that it is never in force for those who are excepted.
        Exceptions(
            CAP_NAME,
            render("training_slice/user-exception.conf"),
            list(settings.admin_groups),
            list(settings.admins),
            settings.group,
        ),
        CapFile(
            CAP,
            cap,
            slices=SESSIONS,
            memory_max=session,
            setting=f"{key}.session_memory_max",
            exception=CAP_NAME,
        ),
        NoFile(SUM)
        if total is None
        else CapFile(
            SUM,
            render("training_slice/user-sum.conf", memory_max=on_host(total), rule=rule(total)),
            slices="user.slice",
            memory_max=on_host(total),
            setting=f"{key}.sessions_memory_max",
        ),
        CapInForce(SLICE, own, SLICE_FILE),
        CapInForce(SESSIONS, session, CAP, CAP_NAME),
        CapInForce("user.slice", None if total is None else on_host(total), SUM),
    )


def apply(settings: TrainingSliceSettings) -> Sequence[Resource]:
    """The caps, the people, the launcher, and the containers. Nothing that runs is touched."""
    people = (settings.group, {name: list(keys) for name, keys in settings.users.items()}, settings.members)
    return (
        # First: who is taken off the list loses the group whatever is refused below. Given is only where a cap is.
        TrainingPeople(*people, gives=False),
        SliceFits(on_host(settings.memory_max), on_host(settings.reserve), SLICE),
        TrainingPeople(*people),
        *caps(settings),
        program(PROGRAM, "launcher"),
        File(CONFIG, launcher_config(settings)),
        *(File(path, render(f"training_slice/{Path(path).name}"), mode=0o755) for path in PROGRAMS),
        *(File(path, render(f"training_slice/{Path(path).name}")) for path in UNITS),
        Service(SOCKET, list(UNITS), reload_for=[]),
        DockerParent(SLICE) if settings.docker == "slice" else NoDockerParent(SLICE),
    )


def remove(settings: TrainingSliceSettings) -> Sequence[Resource]:
    """All of it gone, once no job runs. Accounts that were created are locked; they and their homes stay."""
    return (
        # First: who keeps a job running must not put off the own lock. Jobs go on: expiry counts at a login only.
        TrainingPeople(settings.group, {}, [], wanted=False, gives=False),
        NoJobs(SLICE),
        TrainingPeople(settings.group, {}, [], wanted=False),
        NoService(SOCKET),
        NoDockerParent(SLICE),
        *map(NoFile, UNITS),
        *(NoFile(path) for path in PROGRAMS if path.startswith(USER_BIN)),
        *(NoProgram(path) for path in PROGRAMS if path.startswith(BIN)),
        NotInstalled(PROGRAM),
        NoFile(CONFIG),
        NoTree("/run/sparkfleet/ends"),
        NoFile(CAP),
        NoFile(SUM),
        Exceptions(CAP_NAME, "", [], [], settings.group, wanted=False),
        NoFile(SLICE_FILE),
        NoFile(SERVING_FILE),
        CapInForce(SESSIONS, None, CAP, CAP_NAME),
        CapInForce("user.slice", None, SUM),
    )
