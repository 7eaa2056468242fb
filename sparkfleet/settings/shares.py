"""Sizes that may be a share of the host's memory: one fleet file serves hosts of 64 and of 128 GB.

A share is of the memory that the kernel counts (MemTotal), rounded to five binary digits: what firmware and driver keep
for themselves differs from host to host and from one release to the next, and a cap should not. MemTotal of a Spark of
128 GB is 119.7 to 121.7 GiB (docs/facts.md, 88), which counts as 120 GiB. The fleet file knows no host's memory, so
each host works its shares out itself (`sparkhost.base.shares`); the audit does so here, from the MemTotal that it saw.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from sparkfleet.settings.problems import wrong
from sparkfleet.settings.units import MiB, Size

DIGITS = 5


@dataclass(frozen=True)
class Share:
    """A part of the host's memory, as it is written: `80%`, or `auto` for the part that a setting's rule says."""

    text: str
    numerator: int
    denominator: int

    def __str__(self) -> str:
        return self.text

    @property
    def rule(self) -> str:
        """What it stands for, in words."""
        return self.text if self.text != "auto" else f"auto, {self.numerator}/{self.denominator}"

    def half(self) -> Share:
        return Share(f"half of {self.rule}", self.numerator, 2 * self.denominator)

    def of(self, total: int) -> int:
        """Bytes on a host of so much memory (MemTotal, bytes), a whole number of MiB."""
        step = 1 << max(total.bit_length() - DIGITS, 0)
        counted = (total + step // 2) // step * step
        return counted * self.numerator // self.denominator // MiB * MiB


HostSize = Size | Share


def auto(numerator: int, denominator: int) -> Share:
    """What the word `auto` stands for in a setting."""
    return Share("auto", numerator, denominator)


def is_less(one: HostSize, other: HostSize) -> bool | None:
    """Whether the first is the smaller one on every host; None: that depends on the host's memory."""
    if isinstance(one, Share) and isinstance(other, Share):
        return one.numerator * other.denominator < other.numerator * one.denominator
    return one < other if isinstance(one, Size) and isinstance(other, Size) else None


@dataclass(frozen=True)
class Sized:
    """What a setting takes whose size may be a share. `auto`: what that word stands for, None where it is not taken."""

    auto: Share | None = None

    @property
    def words(self) -> str:
        return "`auto`, size or share" if self.auto else "size or share"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate, serialization=core_schema.to_string_ser_schema(when_used="json")
        )

    def _validate(self, value: Any) -> HostSize:
        if isinstance(value, Size | Share):
            return value
        if value == "auto" and self.auto:
            return self.auto
        if isinstance(value, str) and (match := re.fullmatch(r"([1-9][0-9]?)%", value)):
            return Share(value, int(match[1]), 100)
        try:
            return Size.parse(value if isinstance(value, str) else "")
        except ValueError:
            auto = "auto, " if self.auto else ""
            raise wrong(f"{auto}a share such as 80%, or a size such as 16GiB or 512MiB (GiB is 2^30 bytes)") from None
