"""The settings of the measure training_slice."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sparkfleet.settings.base import Measure
from sparkfleet.settings.problems import contradiction
from sparkfleet.settings.shares import HostSize, Sized, auto, is_less
from sparkfleet.settings.units import MiB, Size
from sparkfleet.settings.values import Count, NewUserName, PublicKey, UnixGroup, UserName, Weight

MEMORY_MAX, RESERVE, SESSION, NEED = auto(5, 6), auto(2, 15), auto(1, 15), auto(2, 3)


class TrainingSliceSettings(Measure):
    """Jobs of training users capped and killable in one slice, their other processes capped as well."""

    memory_max: Annotated[HostSize, Sized(MEMORY_MAX)] = Field(
        default=MEMORY_MAX,
        description="MemoryMax of training.slice, and the most that one job may promise; `auto`: 5/6 of the memory, "
        "100GiB of 120. The kernel does not hold CUDA "
        "memory by it; promises of jobs, which count it, add up to no more. "
        "Refused on a host where it is more than the memory less `reserve`; warned of where the rest of the system "
        "does not fit beside it.",
    )
    reserve: Annotated[HostSize, Sized(RESERVE)] = Field(
        default=RESERVE,
        description="What must stay available beside the slice: the threshold below which the watchdog acts; `auto`: "
        "2/15 of the memory, 16GiB of 120.",
    )
    job_memory_default: Annotated[HostSize, Sized()] | None = Field(
        default=None,
        description="What a job promises to stay below, CPU and GPU memory together, that names no size (`spark-run "
        "--memory`); without a value all of `memory_max`.",
    )
    admission: Literal["warn", "refuse", "wait"] = Field(
        default="warn",
        description="What becomes of a job whose promise does not fit beside those of the jobs that run and what the "
        "system uses: it is warned of, not started, or waits, first come first served.",
    )
    over_promise: Literal["first", "end", "tell"] = Field(
        default="first",
        description="What the watchdog does with a job that holds more than it promised, GPU memory "
        "included: tell its user and end it before all others when memory is short (`first`), end it "
        "also when there is memory (`end`), or only tell (`tell`).",
    )
    tasks_max: Count = Field(default=32768, description="TasksMax of training.slice: all jobs together.")
    job_tasks_max: Count = Field(default=16384, description="TasksMax of one job.")
    jobs_max: Count = Field(default=32, description="Jobs that one user may have at a time.")
    cpu_weight: Weight | None = Field(
        default=None, description="CPUWeight of training.slice; without a value the kernel's, 100."
    )
    io_weight: Weight | None = Field(
        default=None, description="IOWeight of training.slice; without a value the kernel's, 100."
    )
    memlock: Annotated[HostSize, Sized()] | None = Field(
        default=None,
        description="LimitMEMLOCK of jobs; without a value infinity (NCCL locks memory; it counts in `memory_max`). "
        "A job gets its caller's limit where that is lower.",
    )
    session_memory_max: Annotated[HostSize, Sized(SESSION)] = Field(
        default=SESSION,
        description="Cap for all that one user runs outside of jobs: SSH sessions, tmux, cron, user services; `auto`: "
        "1/15 of the memory, 8GiB of 120. Root and admins are excepted.",
    )
    sessions_memory_max: Annotated[HostSize, Sized()] | None = Field(
        default=None,
        description="Cap for all users' sessions together (user.slice). It counts admins as well, for it cannot except "
        "anybody; without a value only the sum of `session_memory_max` is the bound, and the watchdog.",
    )
    admin_groups: list[UnixGroup] = Field(
        default=["sudo", "admin", "wheel"], description="Groups whose members' sessions are not capped."
    )
    admins: list[UserName] = Field(
        default=[], description="Further users whose sessions are not capped. Who deploys is never capped."
    )
    group: UnixGroup = Field(default="training", description="The Unix group whose members may start jobs.")
    users: dict[NewUserName, list[PublicKey]] = Field(
        default={},
        description="Training users that are created where they are missing, with their public keys. The values of "
        "defaults, groups and host are joined.",
    )
    members: list[UserName] = Field(
        default=[], description="Users that exist, locally or in a directory service, and are put into the group."
    )
    need: Annotated[HostSize, Sized(NEED)] = Field(
        default=NEED,
        description="Memory that should be available before a job starts that names none of its own; `auto`: 2/3 of "
        "the memory, 80GiB of 120.",
    )
    preflight: Literal["warn", "refuse", "off"] = Field(
        default="warn", description="What the launcher does where it is not: say so, start nothing, or not look."
    )
    docker: Literal["slice", "keep"] = Field(
        default="slice",
        description="`slice` has Docker, where it is installed, start containers under training.slice unless they name "
        "another (`--cgroup-parent=serving.slice`), `keep` leaves daemon.json alone.",
    )
    serving_memory_max: Annotated[HostSize, Sized()] | None = Field(
        default=None, description="MemoryMax of serving.slice; without a value it has no cap."
    )

    @model_validator(mode="after")
    def _figures_go_together(self) -> Self:
        for key in ("memory_max", "session_memory_max", "job_memory_default"):
            value = getattr(self, key)
            if value is not None and is_less(value, Size(64 * MiB)):
                raise contradiction(key, f"got {value}, expected 64MiB at least")
        if self.job_memory_default is not None and is_less(self.memory_max, self.job_memory_default):
            raise contradiction("job_memory_default", f"is more than memory_max {self.memory_max}")
        if self.sessions_memory_max is not None and is_less(self.sessions_memory_max, self.session_memory_max):
            raise contradiction("sessions_memory_max", f"is less than session_memory_max {self.session_memory_max}")
        if self.job_tasks_max > self.tasks_max:
            raise contradiction("job_tasks_max", f"is more than tasks_max {self.tasks_max}")
        if both := sorted(set(self.admins) & {*self.users, *self.members}):
            raise contradiction("admins", f"{both[0]} is a training user as well: an admin is not capped")
        return self
