"""What the settings of every measure are made of."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


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

    of_group: ClassVar[bool] = False
    """Whether it concerns the hosts of a group together, in fields `host` and `hosts` that the loader fills in."""

    state: Literal["present", "unmanaged", "absent"] = Field(
        default="present",
        description="`present` applies the measure, `unmanaged` leaves whatever is on the host alone, "
        "`absent` removes what sparkfleet put there.",
    )
