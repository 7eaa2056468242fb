"""The settings of the measure stack."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from sparkfleet.settings.base import Measure
from sparkfleet.settings.problems import contradiction
from sparkfleet.settings.values import Keep, StackProfile, StackRelease
from sparkfleet.stack.profile import names


class StackSettings(Measure):
    """One PyTorch and vLLM for everybody, byte for byte the same on all hosts."""

    profile: StackProfile = Field(
        default="current",
        description="Which stack: a folder below `files/stack/` with its locks. `current` is from PyPI alone, `seed` "
        "the first that was shown to work, `nightly` vLLM of one commit, `lab` three small packages for trying it.",
    )
    release: StackRelease | None = Field(
        default=None,
        description="A release that is still installed, as `spark-stack list` names it, instead of the one of the "
        "profile's lock: to go back. Nothing is downloaded; refused on a host that does not have it.",
    )
    keep: Keep = Field(
        default=3,
        description="How many releases stay on a host, the one in use among them; 1 to 20. One that a process still "
        "uses stays in any case.",
    )
    constrain_users: bool = Field(
        default=True,
        description="Whether `uv pip install` in users' own environments takes the stack's versions of torch, vLLM and "
        "CUDA packages, and never flash-attn (UV_CONSTRAINT in login shells).",
    )

    @model_validator(mode="after")
    def _profile_is_there(self) -> Self:
        # Without the project's files (a wheel of sparkfleet alone) there is nothing to compare with, or to deploy.
        if names() and self.profile not in names():
            raise contradiction("profile", f"got {self.profile!r}, expected one of files/stack: {', '.join(names())}")
        return self
