"""The settings of each measure. A new measure is a module beside this one and a line in `HostSettings`.

Every field has a default and a description: docs/settings.md is made of them.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from sparkfleet.settings.base import Measure, Strict
from sparkfleet.settings.cluster_link import ClusterLinkSettings
from sparkfleet.settings.environment import Variables
from sparkfleet.settings.gpu_clock import GpuClockSettings
from sparkfleet.settings.headless import HeadlessSettings
from sparkfleet.settings.problems import contradiction
from sparkfleet.settings.stack import StackSettings
from sparkfleet.settings.tools import ToolsSettings
from sparkfleet.settings.training_slice import TrainingSliceSettings
from sparkfleet.settings.units import GiB, MiB, Seconds, Size
from sparkfleet.settings.values import ArchList, HostPath, Release, ServiceName, Sha256, TomlTable
from sparkfleet.settings.vllm_container import VllmContainerSettings
from sparkfleet.settings.vllm_source import VllmSourceSettings
from sparkfleet.settings.watchdog import HardwareWatchdogSettings, WatchdogSettings

Architecture = Literal["aarch64", "x86_64"]


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

    starts_anew: ClassVar[dict[str, str]] = {"version": "sha256"}

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


class HostSettings(Strict):
    """Everything that is set for one host, one field a measure, in the order in which measures are applied.

    SSH last: its proof is of the host as all measures leave it.
    """

    swap: SwapSettings = SwapSettings()
    cuda_env: CudaEnvSettings = CudaEnvSettings()
    uv: UvSettings = UvSettings()
    stack: StackSettings = StackSettings()
    tools: ToolsSettings = ToolsSettings()
    training_slice: TrainingSliceSettings = TrainingSliceSettings()
    vllm_source: VllmSourceSettings = VllmSourceSettings()
    vllm_container: VllmContainerSettings = VllmContainerSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    hardware_watchdog: HardwareWatchdogSettings = HardwareWatchdogSettings()
    gpu_clock: GpuClockSettings = GpuClockSettings()
    headless: HeadlessSettings = HeadlessSettings()
    cluster_link: ClusterLinkSettings = ClusterLinkSettings()
    ssh: SshSettings = SshSettings()

    def absent(self) -> Self:
        """The same with every measure taken off."""
        measures = {name: getattr(self, name) for name in type(self).model_fields}
        return self.model_copy(update={n: m.model_copy(update={"state": "absent"}) for n, m in measures.items()})


MEASURES = tuple(HostSettings.model_fields)
"""Ours; a site's project may add its own to `HostSettings` (`sparkfleet.site`)."""
