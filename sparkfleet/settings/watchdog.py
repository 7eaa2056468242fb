"""The settings of the memory watchdog, and of the hardware's."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from sparkfleet.settings.base import Measure
from sparkfleet.settings.problems import contradiction
from sparkfleet.settings.shares import HostSize, Share, Sized, auto, is_less
from sparkfleet.settings.units import GiB, MiB, Seconds, Size
from sparkfleet.settings.values import HostPath, ModuleName, UnitPattern, UserOrGroup

TERM, KILL = auto(2, 15), auto(1, 15)
SERVING = Size(GiB)
"""term_below of hosts that live with next to nothing free. No share: the room to act in does not grow with the host."""


class WatchdogSettings(Measure):
    """Ends the right job before memory runs out, and tells its owner why."""

    profile: Literal["training", "serving"] = Field(
        default="training",
        description="What `auto` is for term_below: `training` 2/15 of the memory, 16GiB of 120, `serving` 1GiB, for "
        "hosts whose models are meant to fill the memory to about 2 GiB.",
    )
    term_below: Annotated[HostSize, Sized(TERM)] | None = Field(
        default=TERM,
        description="Below this much MemAvailable the unit of work that took what is missing is asked to end "
        "(SIGTERM); `auto`, and without a value: the profile's. At most half of the memory.",
    )
    kill_below: Annotated[HostSize, Sized(KILL)] | None = Field(
        default=KILL,
        description="Below this much MemAvailable it is killed (SIGKILL); `auto`, and without a value: half of "
        "term_below.",
    )
    grace: Seconds = Field(
        default=Seconds(5),
        description="How long a unit of work that was asked to end may take, as long as MemAvailable is not below "
        "kill_below; 0s to 10min.",
    )
    recovery_wait: Seconds = Field(
        default=Seconds(3),
        description="How long memory is waited for after a kill, before the next unit of work; 500ms to 1min. The "
        "driver may take a while to give it back.",
    )
    far: Seconds = Field(
        default=Seconds(1), description="Longest time between two looks at the memory, while there is plenty; up to 5s."
    )
    near: Seconds = Field(
        default=Seconds.parse("50ms"), description="Time between two looks while memory is short; 5ms to 50ms."
    )
    fastest_fill: Size = Field(
        default=Size(8 * GiB),
        description="The bytes per second at which memory may fill at worst: the looks come so often that this cannot "
        "pass the threshold unseen.",
    )
    smallest_victim: Size = Field(
        default=Size(256 * MiB),
        description="Units of work that hold less are ended only below kill_below, when nothing else is left.",
    )
    system_unit_above: Size = Field(
        default=Size(GiB),
        description="Services of the host that hold more than this, or any GPU memory, are ended when no job, "
        "container or login's work is left; others never.",
    )
    protect: list[UnitPattern] = Field(
        default=[],
        description="Units that are never ended, besides those that `spark-watchdog protected` lists; names or shell "
        "patterns.",
    )
    prefer: list[UnitPattern] = Field(
        default=[],
        description="Units that are ended before all others, whatever their size above smallest_victim.",
    )
    gpu_memory: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whose GPU memory counts: `auto` that of GPUs without memory of their own (a Spark's), `always`, "
        "or `never`.",
    )
    gpu_every: Seconds = Field(
        default=Seconds(1), description="How often GPU memory is looked at; figures five times as old are not used."
    )
    brake: Literal["all", "jobs", "off"] = Field(
        default="all",
        description="Whose work may be frozen, for seconds, while memory is short and it is found out who takes it, or "
        "the one that does is still dying: `all` users' (never root's and admins' sessions), `jobs` and containers "
        "only, or nobody's (`off`).",
    )
    brake_at_most: Seconds = Field(
        default=Seconds(10), description="How long work is frozen at most; 1s to 30s. Then the next one is ended."
    )
    never_frozen: list[UserOrGroup] = Field(
        default=["@sudo", "@admin", "@wheel"],
        description="Accounts, and groups as `@sudo`, whose logins are never frozen; root's are not in any case.",
    )
    drop_page_cache: bool = Field(
        default=False,
        description="Whether clean page cache is dropped, at most once a minute, when less than 2 GiB are free while "
        "enough is available: CUDA allocates from what is free.",
    )
    textfile: HostPath | None = Field(
        default="/var/lib/prometheus/node-exporter",
        description="Directory of the Prometheus node exporter's textfile collector; nothing is written where it does "
        "not exist.",
    )
    replace_earlyoom: bool = Field(
        default=False,
        description="Whether earlyoom's service is switched off while the watchdog runs, and put back as it was once "
        "this or the measure is taken back. Two killers take two victims.",
    )
    dry_run: bool = Field(default=False, description="Whether it decides and tells, and signals nobody.")

    _over_promise: str = PrivateAttr(default="first")

    @property
    def over_promise(self) -> str:
        """`training_slice.over_promise`: the launcher makes promises, the watchdog keeps people to them."""
        return self._over_promise

    def with_promises(self, over_promise: str) -> Self:
        """The same with what becomes of whoever breaks a promise."""
        copied = self.model_copy()
        copied._over_promise = over_promise
        return copied

    @property
    def floors(self) -> tuple[HostSize, HostSize]:
        """term_below and kill_below in force."""
        term, kill = self.term_below, self.kill_below
        if term is None or term == TERM:
            term = SERVING if self.profile == "serving" else TERM
        if kill is None or kill == KILL:
            kill = term.half() if isinstance(term, Share) else Size(term // 2)
        return term, kill

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        term, kill = self.floors
        if self.replace_earlyoom and self.dry_run:
            raise contradiction("replace_earlyoom", "goes with dry_run: false: else nobody would end anything")
        # Whether a share and a size go together is known on the host only, which is asked (`FloorsFit`).
        if is_less(kill, Size(1)) or is_less(kill, term) is False:
            key = "kill_below" if self.kill_below is not None else "term_below"
            raise contradiction(key, f"kill_below ({kill}) is not less than term_below ({term})")
        for key, low, high in (
            ("grace", 0, 600),
            ("recovery_wait", 0.5, 60),
            ("near", 0.005, 0.05),
            ("far", float(self.near), 5),
            ("gpu_every", 0.5, 60),
            ("brake_at_most", 1, 30),
        ):
            if not low <= getattr(self, key) <= high:
                raise contradiction(key, f"is out of range, expected {Seconds(low)} to {Seconds(high)}")
        if self.fastest_fill < 64 * MiB:
            raise contradiction("fastest_fill", "is out of range, expected 64MiB or more (a second)")
        return self


class HardwareWatchdogSettings(Measure):
    """Hardware that resets a host which nothing reaches any more; off unless armed."""

    armed: bool = Field(
        default=False,
        description="Whether the hardware's timer is armed. Everything that runs is lost when it fires; it is refused "
        "where the host has none.",
    )
    driver: ModuleName = Field(
        default="sbsa_gwdt",
        description="The timer's kernel module, loaded at a deploy and at boot where there is no /dev/watchdog: "
        "kernels of Ubuntu keep a Spark's, sbsa_gwdt, from being loaded by itself.",
    )
    timeout: Seconds = Field(
        default=Seconds(60),
        description="How long PID 1 may be silent before the hardware resets the host; 20s to 10min.",
    )
    panic: Seconds = Field(
        default=Seconds(30),
        description="How long after a kernel panic the host starts again (kernel.panic); 1s to 10min.",
    )
    hung_task_panic: bool = Field(
        default=False,
        description="Whether a process that hangs in the kernel long (hung_task_timeout_secs) is taken for a panic; a "
        "driver that is slow to free memory can look like that.",
    )

    @model_validator(mode="after")
    def _times_are_sane(self) -> Self:
        for key, low in (("timeout", 20), ("panic", 1)):
            value = getattr(self, key)
            if not low <= value <= 600 or value != int(value):
                raise contradiction(key, f"is out of range, expected whole seconds from {low}s to 10min")
        return self
