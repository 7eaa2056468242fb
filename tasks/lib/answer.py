"""What a host answers, checked: bounded, of the right form, and with nothing in any text that acts on a terminal."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sparkfleet import foreign

BLOCKS = ("diff", "traceback")
"""Texts of an answer that have several lines."""


class _Known(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Change(_Known):
    what: str
    summary: str
    diff: str
    needs: list[dict[str, Any]]


class _Measure(_Known):
    changes: list[_Change]
    warnings: list[str]
    refused: list[str]
    error: str | None
    traceback: str = ""


class _Result(_Known):
    result: str


class _Last(_Known):
    measures: dict[str, _Result]


class _History(_Known):
    measures: dict[str, dict[str, Any]]
    last: _Last | None


class _Answer(_Known):
    plan: dict[str, _Measure]
    applied: _Measure | None = None
    notes: list[str] = []
    unproved: bool = False
    history: _History | None = None


class _Busy(_Known):
    busy: str


class Malformed(ValueError):
    """An answer that is not one of sparkhost's. One line."""


class Busy(Exception):
    """Another deploy is at work on the host. One line, the host's own."""


def parsed(line: str, *needed: str) -> dict[str, Any]:
    """The answer that a host printed; `needed` are keys that must be there and hold something.

    Raises:
        Malformed: it is no answer.
        Busy: the host says that another deploy has it.
    """
    try:
        found = foreign.plain(foreign.loads(line), BLOCKS)
    except foreign.NotPlain as error:
        raise Malformed(f"the answer is {error}") from error
    try:
        if isinstance(found, dict) and "busy" in found:
            raise Busy(" ".join(_Busy.model_validate(found).busy.split()))
        _Answer.model_validate(found)
        if any(found.get(key) is None for key in needed):
            raise Malformed("the answer has another form than this version's: it lacks a part")
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole"
        raise Malformed(f"the answer has another form than this version's: {where}") from error
    answer: dict[str, Any] = found
    return answer
