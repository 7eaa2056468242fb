"""Mistakes in a fleet file: one line each, with file, line, dotted key, value, and what was expected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from pydantic_core import PydanticCustomError

Path = tuple[str | int, ...]
"""Where a value stands in the file: keys of mappings, and indexes of lists."""

LONGEST = 60
"""Characters of a value that are shown; the user has the rest in the file."""

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class FleetError(Exception):
    """A fleet file that cannot be used; its text has one line for each mistake."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True)
class Problem:
    """One mistake, where it stands."""

    path: Path
    text: str
    line: int | None = None


def wrong(expected: str, *, at: Path = ()) -> PydanticCustomError:
    """What a validator raises: the value is not what is expected. `at` leads to a part of the value."""
    template: LiteralString = "expected {expected}"
    return PydanticCustomError("expected", template, {"expected": expected, "at": at})


def contradiction(key: str, text: str) -> PydanticCustomError:
    """What a model validator raises: fields that are fine alone do not go together. `key` is the one to change."""
    template: LiteralString = "{text}"
    return PydanticCustomError("contradiction", template, {"text": text, "at": (key,)})


def dotted(path: Path) -> str:
    """`hosts.spark1.groups[0]`; a key that could be misread is quoted and escaped."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if BARE_KEY.fullmatch(part) and len(part) <= LONGEST else show(part))
    return text


def show(value: Any) -> str:
    """A value as it may stand on a terminal: cut, with control characters escaped."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= LONGEST else value[: LONGEST - 1] + "…")
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            text = str(value)
            return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def escaped(text: str) -> str:
    """The text with everything that a terminal would act on as an escape sequence."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
