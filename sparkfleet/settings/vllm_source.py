"""The settings of the measure vllm_source."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sparkfleet.settings.base import Measure
from sparkfleet.settings.environment import Variables
from sparkfleet.settings.problems import contradiction, wrong
from sparkfleet.settings.shares import HostSize, Sized, auto, is_less
from sparkfleet.settings.units import GiB, MiB, Seconds, Size
from sparkfleet.settings.values import Count, Means

HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
PATH = r"(/[A-Za-z0-9._+~-]+)+"


def _plain(path: str) -> bool:
    return not {".", ".."} & set(path.split("/"))


def _repository(value: str) -> str:
    # It ends up on git's command line; a password in an address would be in everybody's process list.
    remote = re.fullmatch(rf"(https|git)://{HOST}{PATH}|ssh://([A-Za-z0-9._-]+@)?{HOST}{PATH}", value)
    if not (remote or re.fullmatch(PATH, value)) or not _plain(value):
        raise wrong("an address of git that begins with https://, ssh:// or git://, or an absolute path on the host")
    return value


def _commit(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", value):
        raise wrong("a commit of 40 lower-case hex digits (git rev-parse TAG^{commit}): a branch or tag can move")
    return value


def _in_checkout(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*", value) or not _plain(value) or value[0] == "-":
        raise wrong("a path in the checkout such as requirements/build.txt")
    return value


def _index(value: str) -> str:
    if not (re.fullmatch(rf"https?://{HOST}({PATH})?/?", value) or re.fullmatch(PATH, value)) or not _plain(value):
        raise wrong("the address of a package index (https:// or http://), or a directory of wheels on the host")
    return value


Repository = Annotated[str, AfterValidator(_repository), Means("git repository")]
Commit = Annotated[str, AfterValidator(_commit), Means("commit")]
InCheckout = Annotated[str, AfterValidator(_in_checkout), Means("path in the checkout")]
Index = Annotated[str, AfterValidator(_index), Means("package index or directory")]


MEMORY_MAX, RESERVE = auto(2, 3), auto(2, 15)


class VllmSourceSettings(Measure):
    """vLLM built on the host from one commit, on top of the stack: the way out where its wheel stops working."""

    # Not `present`, unlike every other measure's: half an hour of compiling is for who asks for it.
    state: Literal["present", "unmanaged", "absent"] = Field(
        default="absent",
        description="`present` builds it in the background and keeps it, `unmanaged` leaves whatever is on the host "
        "alone, `absent` (the default of this measure) removes what sparkfleet put there.",
    )
    repository: Repository = Field(
        default="https://github.com/vllm-project/vllm.git",
        description="Where vLLM's source is fetched from: https, ssh, git, or an absolute path on the host (not below "
        "/home or /root, which a build does not see).",
    )
    commit: Commit | None = Field(
        default=None,
        description="What is built: 40 hex digits. It must be set where the measure is present; a branch or tag is "
        "not taken, since it can move.",
    )
    requirements: InCheckout | None = Field(
        default=None,
        description="The file with vLLM's build requirements in the checkout; without a value the first that is there "
        "of requirements/build/cuda.txt and requirements/build.txt (vLLM has moved it).",
    )
    index: Index | None = Field(
        default=None,
        description="Where build requirements, and what vLLM needs beyond the stack, come from: the address of a "
        "package index, or a directory of wheels on the host. Without a value what /etc/uv/uv.toml says, else PyPI.",
    )
    variables: Variables = Field(
        default={},
        description="Further variables of the build, such as VLLM_CUTLASS_SRC_DIR on hosts without internet. The "
        "values of defaults, groups and host are joined. CUDA's come from the measure cuda_env.",
    )
    memory_per_job: Size = Field(
        default=Size(8 * GiB),
        description="Memory that one compiler may need: MAX_JOBS is so many as fit into what the build may have.",
    )
    max_jobs: Count = Field(
        default=4, description="Compilers at a time, at most (MAX_JOBS), however much memory there is."
    )
    memory_max: Annotated[HostSize, Sized(MEMORY_MAX)] = Field(
        default=MEMORY_MAX,
        description="MemoryMax of the build, which runs in training.slice; `auto`: 2/3 of the memory, 80GiB of 120. "
        "Refused on a host where it is not less than "
        "the slice's.",
    )
    reserve: Annotated[HostSize, Sized(RESERVE)] = Field(
        default=RESERVE,
        description="What must stay available beside the build: the threshold below which the watchdog acts; `auto`: "
        "2/15 of the memory, 16GiB of 120.",
    )
    timeout: Seconds = Field(
        default=Seconds(4 * 3600),
        description="How long a build may take in all before it is ended; 1min to 24h. The next deploy goes on with "
        "it.",
    )

    @model_validator(mode="after")
    def _figures_go_together(self) -> Self:
        if self.state == "present" and self.commit is None:
            # Not at `commit`, which stands nowhere: the line is that of what asks for it.
            text = "is present without vllm_source.commit: set it to the commit to build, 40 hex digits"
            raise contradiction("state", text)
        if self.memory_per_job < 64 * MiB:
            raise contradiction("memory_per_job", f"got {self.memory_per_job}, expected 64MiB at least")
        if is_less(self.memory_max, self.memory_per_job):
            raise contradiction("memory_max", f"is less than memory_per_job {self.memory_per_job}")
        if not 60 <= self.timeout <= 24 * 3600:
            raise contradiction("timeout", "is out of range, expected 1min to 24h")
        return self
