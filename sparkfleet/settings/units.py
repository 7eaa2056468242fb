"""Values with a unit. A bare number is refused: nobody reading it knows what it counts."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from sparkfleet.settings.problems import wrong

KiB = 2**10
MiB = 2**20
GiB = 2**30
TiB = 2**40

SIZE_UNITS = {"B": 1, "KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": TiB}
# The kernel and systemd count bytes in 64 bits with a sign.
LARGEST_SIZE = 2**63 - 1

DURATION_UNITS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST_DURATION = 10_000 * DURATION_UNITS["d"]


class Size(int):
    """A number of bytes; written `16GiB` or `512MiB`, and shown so again."""

    def __new__(cls, count: int) -> Self:
        if not 0 <= count <= LARGEST_SIZE:
            raise ValueError(f"{count} bytes is not a size")
        return super().__new__(cls, count)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a size as it is written in a fleet file."""
        match = re.fullmatch(r"([0-9]{1,19})(B|KiB|MiB|GiB|TiB)", text)
        if not match:
            raise wrong("a size such as 16GiB or 512MiB (GiB is 2^30 bytes)")
        count = int(match[1]) * SIZE_UNITS[match[2]]
        if count > LARGEST_SIZE:
            raise wrong("a size below 8388608TiB")
        return cls(count)

    def __str__(self) -> str:
        unit, count = next((u, c) for u, c in reversed(SIZE_UNITS.items()) if self % c == 0 and (self or c == 1))
        return f"{int(self) // count}{unit}"

    def __repr__(self) -> str:
        return f"Size.parse({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema(when_used="json")
        )

    @classmethod
    def _validate(cls, value: Any) -> Self:
        return value if isinstance(value, cls) else cls.parse(value if isinstance(value, str) else "")


class Seconds(float):
    """A duration in seconds, to the millisecond; written `500ms`, `30s`, `5min`, `2h` or `1d`, and shown so again."""

    def __new__(cls, seconds: float | Decimal) -> Self:
        if not 0 <= seconds <= LONGEST_DURATION / 1000:
            raise ValueError(f"{seconds} seconds is not a duration")
        return super().__new__(cls, seconds)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a duration as it is written in a fleet file."""
        match = re.fullmatch(r"([0-9]{1,15})(ms|s|min|h|d)", text)
        if not match:
            raise wrong("a duration such as 500ms, 30s, 5min or 2h")
        milliseconds = int(match[1]) * DURATION_UNITS[match[2]]
        if milliseconds > LONGEST_DURATION:
            raise wrong("a duration of at most 10000d")
        return cls(Decimal(milliseconds) / 1000)

    @property
    def milliseconds(self) -> int:
        return round(self * 1000)

    def __str__(self) -> str:
        total = self.milliseconds
        if not total:
            return "0s"
        unit, count = next((u, c) for u, c in reversed(DURATION_UNITS.items()) if total % c == 0)
        return f"{total // count}{unit}"

    def __repr__(self) -> str:
        return f"Seconds.parse({str(self)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema(when_used="json")
        )

    @classmethod
    def _validate(cls, value: Any) -> Self:
        return value if isinstance(value, cls) else cls.parse(value if isinstance(value, str) else "")
