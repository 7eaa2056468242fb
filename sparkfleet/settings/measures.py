"""The settings of each measure. A new measure is a class here and a line in `HostSettings`.

Every field has a default and a description: docs/settings.md is made of them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sparkfleet.settings.environment import Variables
from sparkfleet.settings.problems import contradiction
from sparkfleet.settings.units import GiB, MiB, Seconds, Size
from sparkfleet.settings.values import (
    ArchList,
    Count,
    HostPath,
    NewUserName,
    PublicKey,
    Release,
    ServiceName,
    Sha256,
    TomlTable,
    UnixGroup,
    UserName,
    Weight,
)

Architecture = Literal["aarch64", "x86_64"]


class Strict(BaseModel):
    """A mapping of the fleet file: no unknown keys, no conversions, and a key without a value sets nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _nothing_set(cls, value: Any) -> Any:
        return {} if value is None else value


class Measure(Strict):
    """What every measure has."""

    starts_anew: ClassVar[dict[str, str]] = {}
    """Key -> key: where a level (group, host) gives the first another value, what levels below it say of the second
    does not apply any more."""

    state: Literal["present", "unmanaged", "absent"] = Field(
        default="present",
        description="`present` applies the measure, `unmanaged` leaves whatever is on the host alone, "
        "`absent` removes what sparkfleet put there.",
    )


class SwapSettings(Measure):
    """Swap off, now and for good."""

    mode: Literal["off", "keep"] = Field(
        default="off",
        description="`off` turns swap off and keeps it off over reboots, `keep` leaves swap alone.",
    )
    margin: Size = Field(
        default=Size(GiB),
        description="Swap is turned off only while the available memory holds what is in swap and this much more; "
        "else the measure is refused, because swapoff itself could exhaust the memory.",
    )


class CudaEnvSettings(Measure):
    """The CUDA environment, the same in every kind of login, service and cron job."""

    home: HostPath = Field(
        default="/usr/local/cuda",
        description="The CUDA toolkit: CUDA_HOME, and its `bin` in PATH.",
    )
    arch_list: ArchList = Field(
        default="12.1a",
        description="TORCH_CUDA_ARCH_LIST: the compute capabilities that extensions are built for. GB10 is 12.1a.",
    )
    ld_library_path: Literal["export", "ldconfig", "none"] = Field(
        default="export",
        description="How programs find the toolkit's libraries: `export` sets LD_LIBRARY_PATH (which beats the "
        "libraries that a wheel brings along), `ldconfig` adds them to the system's search path (after a wheel's "
        "own), `none` does neither.",
    )
    ptxas: HostPath | None = Field(
        default=None,
        description="The ptxas that Triton uses (TRITON_PTXAS_PATH, TRITON_PTXAS_BLACKWELL_PATH); "
        "without a value the toolkit's own, `bin/ptxas` below `home`.",
    )
    variables: Variables = Field(
        default={},
        description="Further variables of the site, name to value. The values of defaults, groups and host are "
        "joined. Values are limited to what shells, systemd, PAM and cron all read the same.",
    )

    @property
    def ptxas_path(self) -> str:
        """The ptxas in force."""
        return self.ptxas or f"{self.home}/bin/ptxas"


UV_VERSION = "0.13.9"
UV_SHA256: dict[Architecture, Sha256] = {
    # uv-0.13.9-py3-none-manylinux_2_28_aarch64.whl
    "aarch64": "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    # uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl
    "x86_64": "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
}


class UvSettings(Measure):
    """A pinned uv for everyone on the host."""

    starts_anew = {"version": "sha256"}

    version: Release = Field(
        default=UV_VERSION,
        description="The release of uv. Another one than the default needs its `sha256` beside it.",
    )
    sha256: dict[Architecture, Sha256] = Field(
        default=UV_SHA256,
        description="SHA-256 of the release's wheel for Linux, by architecture (`aarch64`, `x86_64`), as PyPI lists "
        "it; at least those of the architectures in use.",
    )
    config: TomlTable = Field(
        default={},
        description="The contents of /etc/uv/uv.toml, for every user of the host. Mappings of defaults, groups and "
        "host are joined.",
    )

    @model_validator(mode="after")
    def _hashes_are_of_the_version(self) -> Self:
        if not self.sha256:
            raise contradiction("sha256", "is empty, expected the SHA-256 of a wheel by architecture")
        for architecture, digest in self.sha256.items():
            if self.version != UV_VERSION and digest == UV_SHA256[architecture]:
                raise contradiction(
                    "version",
                    f"got {self.version!r} with the {architecture} hash of {UV_VERSION}: set uv.sha256.{architecture} "
                    f"beside it, as PyPI lists it for the files of uv {self.version}",
                )
            if self.version == UV_VERSION and digest != UV_SHA256[architecture]:
                raise contradiction(
                    "sha256", f"the {architecture} hash is not that of {UV_VERSION}, leave it out: it is known"
                )
        return self


class SshSettings(Measure):
    """sshd protected, its sessions killable, changes to it kept only when a new login has proved them."""

    memory_min: Size = Field(
        default=Size(512 * MiB),
        description="MemoryMin of ssh.service, granted by system.slice as well.",
    )
    protect: dict[ServiceName, Size] = Field(
        default={},
        description="Further services that get the same protection: unit name to MemoryMin. The values of defaults, "
        "groups and host are joined.",
    )
    confirm_within: Seconds = Field(
        default=Seconds(120),
        description="How long the host waits for the proof that logins work before it takes a change back by itself; "
        "15s to 1h.",
    )
    trial_login: bool = Field(
        default=True,
        description="Whether a login through an sshd of its own is tried before sshd is restarted. It comes from no "
        "address: `false` where sshd or PAM let the admin in from certain addresses only.",
    )

    @model_validator(mode="after")
    def _time_is_sane(self) -> Self:
        if not 15 <= self.confirm_within <= 3600:
            raise contradiction("confirm_within", "is out of range, expected 15s to 1h")
        if "ssh.service" in self.protect:
            raise contradiction("protect", "has ssh.service: use memory_min")
        return self


class TrainingSliceSettings(Measure):
    """Jobs of training users capped and killable in one slice, their other processes capped as well."""

    memory_max: Size = Field(
        default=Size(100 * GiB),
        description="MemoryMax of training.slice, and the most that one job may have. It does not hold CUDA memory. "
        "Refused on a host where it is more than the memory less `reserve`; warned of where the rest of the system "
        "does not fit beside it.",
    )
    reserve: Size = Field(
        default=Size(16 * GiB),
        description="What must stay available beside the slice: the threshold below which the watchdog kills.",
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
    memlock: Size | None = Field(
        default=None,
        description="LimitMEMLOCK of jobs; without a value infinity (NCCL locks memory; it counts in `memory_max`). "
        "A job gets its caller's limit where that is lower.",
    )
    session_memory_max: Size = Field(
        default=Size(8 * GiB),
        description="Cap for all that one user runs outside of jobs: SSH sessions, tmux, cron, user services. Root and "
        "admins are excepted.",
    )
    sessions_memory_max: Size | None = Field(
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
    need: Size = Field(
        default=Size(80 * GiB),
        description="Memory that should be available before a job starts that names none of its own.",
    )
    preflight: Literal["warn", "refuse", "off"] = Field(
        default="warn", description="What the launcher does where it is not: say so, start nothing, or not look."
    )
    docker: Literal["slice", "keep"] = Field(
        default="slice",
        description="`slice` has Docker, where it is installed, start containers under training.slice unless they name "
        "another (`--cgroup-parent=serving.slice`), `keep` leaves daemon.json alone.",
    )
    serving_memory_max: Size | None = Field(
        default=None, description="MemoryMax of serving.slice; without a value it has no cap."
    )

    @model_validator(mode="after")
    def _figures_go_together(self) -> Self:
        for key in ("memory_max", "session_memory_max"):
            if getattr(self, key) < 64 * MiB:
                raise contradiction(key, f"got {getattr(self, key)}, expected 64MiB at least")
        if self.sessions_memory_max is not None and self.sessions_memory_max < self.session_memory_max:
            raise contradiction("sessions_memory_max", f"is less than session_memory_max {self.session_memory_max}")
        if self.job_tasks_max > self.tasks_max:
            raise contradiction("job_tasks_max", f"is more than tasks_max {self.tasks_max}")
        if both := sorted(set(self.admins) & {*self.users, *self.members}):
            raise contradiction("admins", f"{both[0]} is a training user as well: an admin is not capped")
        return self


class HostSettings(Strict):
    """Everything that is set for one host, one field a measure."""

    swap: SwapSettings = SwapSettings()
    cuda_env: CudaEnvSettings = CudaEnvSettings()
    uv: UvSettings = UvSettings()
    ssh: SshSettings = SshSettings()
    training_slice: TrainingSliceSettings = TrainingSliceSettings()
