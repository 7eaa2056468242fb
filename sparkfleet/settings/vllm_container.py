"""The settings of the measure vllm_container."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sparkfleet.settings.base import Measure
from sparkfleet.settings.problems import contradiction, wrong
from sparkfleet.settings.units import GiB, Size
from sparkfleet.settings.values import Address, HostPath, Means, Port

# docs.docker.com/reference/cli/docker/image/tag: a host with an optional port, then lower-case parts.
REPOSITORY = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]{1,2}[a-z0-9]+)*)+|[a-z0-9]+([._-][a-z0-9]+)*"
)
OURS = ("--gpu-memory-utilization", "--load-format", "--host", "--port", "--model")
"""Options of `vllm serve` that other settings are for."""


def _image(value: str) -> str:
    if not REPOSITORY.fullmatch(value):
        raise wrong("a repository such as vllm/vllm-openai, without a tag: `digest` says which image of it")
    return value


def _digest(value: str) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", value):
        raise wrong("sha256: and 64 lower-case hex digits, as `docker buildx imagetools inspect IMAGE:TAG` prints them")
    return value


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0.05 <= value <= 0.7:
        raise wrong("a share from 0.05 to 0.7: CPU and GPU have one memory, and what vLLM takes the host lacks")
    return float(value)


def _word(value: str) -> str:
    # They end up in a unit file, where these mean something (systemd.service(5), COMMAND LINES).
    if not re.fullmatch(r"[A-Za-z0-9._:/@=,+-]+", value):
        raise wrong("one word of letters, digits and ._:/@=,+-")
    return value


Image = Annotated[str, AfterValidator(_image), Means("repository of images")]
Digest = Annotated[str, AfterValidator(_digest), Means("digest")]
Share = Annotated[float, BeforeValidator(_share), Means("share")]
Word = Annotated[str, AfterValidator(_word), Means("word")]


class VllmContainerSettings(Measure):
    """A container of vLLM, pinned by digest: another way to serve a model than the stack's own vLLM."""

    # Not `present`, unlike every other measure's: a server of models is for who asks for one.
    state: Literal["present", "unmanaged", "absent"] = Field(
        default="absent",
        description="`present` keeps the image there and serves `model`, `unmanaged` leaves whatever is on the host "
        "alone, `absent` (the default of this measure) removes what sparkfleet put there.",
    )
    image: Image = Field(
        default="vllm/vllm-openai",
        description="Where the image is pulled from, without a tag: vLLM's own, as NVIDIA's playbook for one Spark has "
        "it; nvcr.io/nvidia/vllm is NVIDIA's. Hosts without internet: the same image in a "
        "registry on the LAN; its digest stays the same if it is copied with `skopeo copy --all --preserve-digests`.",
    )
    digest: Digest | None = Field(
        default=None,
        description="Which image: `sha256:` and 64 hex digits. It must be set where the measure is present; a tag is "
        "not taken, since it can move.",
    )
    model: Word | None = Field(
        default=None,
        description="What is served, as `vllm serve` takes it: a name, or a path below /models. Without a value the "
        "image is there, and nothing is started.",
    )
    models: HostPath | None = Field(
        default=None, description="A directory of the host with models, seen read-only as /models in the container."
    )
    cache: HostPath = Field(
        default="/var/cache/sparkfleet-vllm",
        description="A directory of the host for what vLLM downloads and compiles, seen as /root/.cache.",
    )
    address: Address = Field(
        default="127.0.0.1",
        description="The host's address that the server listens on. vLLM asks nobody for a password: whoever reaches "
        "it can use it.",
    )
    port: Port = Field(default=8000, description="The host's port that the server listens on.")
    gpu_memory_utilization: Share = Field(
        default=0.4,
        description="The share of the memory that vLLM takes for itself, 0.05 to 0.7; it is started only once so much "
        "is available.",
    )
    load_format: Literal["auto", "safetensors", "fastsafetensors", "runai_streamer"] = Field(
        default="fastsafetensors",
        description="How vLLM reads the weights (--load-format), as NVIDIA's playbook has it; `auto` is vLLM's own "
        "choice, for an image without fastsafetensors.",
    )
    slice: Literal["training", "serving"] = Field(
        default="training",
        description="Whose cap the container's CPU memory counts under: `training` beside the jobs, `serving` in "
        "serving.slice. Both are of the measure training_slice.",
    )
    memory_max: Size = Field(
        default=Size(24 * GiB), description="Memory of the container in all, that of the GPU not counted (--memory)."
    )
    space: Size = Field(
        default=Size(48 * GiB),
        description="What must be free below Docker's directory before the image is pulled: layers lie there packed "
        "and unpacked for a moment.",
    )
    gpus: Literal["all", "cdi", "none"] = Field(
        default="all",
        description="How the container gets the GPU: `all` by NVIDIA's container toolkit (`--gpus all`; while it runs, "
        "a later daemon-reload is held back, since it would take the GPU away), `cdi` by its CDI specification "
        "(`--device nvidia.com/gpu=all`; Docker 25 or newer), `none` not at all.",
    )
    arguments: list[Word] = Field(
        default=[], description="Further arguments of `vllm serve`, such as --max-model-len=8192."
    )

    @property
    def reference(self) -> str:
        """The image by its digest, as Docker takes it."""
        return f"{self.image}@{self.digest}"

    @model_validator(mode="after")
    def _figures_go_together(self) -> Self:
        if self.state == "present" and self.digest is None:
            # Not at `digest`, which stands nowhere: the line is that of what asks for it.
            raise contradiction(
                "state",
                "is present without vllm_container.digest: set it to what `docker buildx imagetools inspect "
                f"{self.image}:TAG` prints as Digest",
            )
        if self.memory_max < GiB // 16:
            raise contradiction("memory_max", f"got {self.memory_max}, expected 64MiB at least")
        for argument in self.arguments:
            if argument.partition("=")[0] in OURS:
                raise contradiction("arguments", f"has {argument}: use the setting for it")
        return self
