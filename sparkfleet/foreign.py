"""Data that somebody else wrote, made harmless once, where it is read: bounded, and nothing that a terminal obeys.

What a host answers goes to terminals, logs, pages and files from here; none of these has to look at it again.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sparkfleet.settings.problems import escaped

ANSWER_BYTES = 2 * 1024 * 1024
"""Most that a host may answer at a time. The plan of a new host has less than 0.2 MiB, an audit's answer 20 KiB."""
MARKS = 50_000
"""Most of `[`, `{` and `,` in an answer. An object of one entry takes 232 bytes of memory for 8 characters of text
(CPython 3.11, 64 bit); each needs two of these."""
VALUES = 8_000
"""Most values in an answer; a plan that asks for all 208 wheels of a stack has some 1,500."""
DEPTH = 16
LINE = 2000
"""Characters that are kept of a text, unless it is one of many lines."""


class NotPlain(ValueError):
    """Data beyond a limit, or in no form that we know. One line."""


def loads(text: str | bytes) -> Any:
    """JSON of somebody else's.

    Raises:
        NotPlain: it is none, or more than would be read.
    """
    if len(text) > ANSWER_BYTES:
        raise NotPlain(f"longer than {ANSWER_BYTES // 1024**2} MiB")
    try:
        text = text if isinstance(text, str) else text.decode()
        if sum(map(text.count, "[{,")) > MARKS:
            raise NotPlain(f"more than {MARKS} values")
        return json.loads(text)
    except NotPlain:
        raise
    except RecursionError as error:
        raise NotPlain("not JSON: nested without end") from error
    except ValueError as error:
        raise NotPlain(f"not JSON: {escaped(str(error))[:LINE]}") from error


def plain(value: Any, blocks: Collection[str] = (), values: int = VALUES) -> Any:
    r"""The same JSON value with nothing in any text, keys included, that acts on a terminal or a page.

    Control characters (C0, C1, ESC and so every escape sequence), bidirectional and zero-width characters and lone
    surrogates are written out, such as `\x1b`. Texts under the keys in `blocks` keep their lines and tabs; others are
    one line, of at most `LINE` characters.

    Raises:
        NotPlain: it is nested too deeply, or has too many values.
    """
    return _Plain(blocks, values).of(value, DEPTH, block=False)


class _Plain:
    def __init__(self, blocks: Collection[str], values: int) -> None:
        self.blocks = blocks
        self.left = self.most = values

    def of(self, value: Any, depth: int, *, block: bool) -> Any:
        self.left -= 1
        if self.left < 0:
            raise NotPlain(f"more than {self.most} values")
        if not depth:
            raise NotPlain(f"nested more than {DEPTH} deep")
        match value:
            case str():
                return lines(value) if block else line(value)
            case list():
                return [self.of(each, depth - 1, block=block) for each in value]
            case dict():
                return {line(key): self.of(each, depth - 1, block=key in self.blocks) for key, each in value.items()}
            case _:
                return value


def line(text: str, most: int = LINE) -> str:
    """A text as one line."""
    text = text if len(text) <= most else text[: most - 1] + "…"
    return text if text.isprintable() else escaped(text)


def lines(text: str) -> str:
    """A text of several lines, with its tabs."""
    return "\n".join("\t".join(escaped(part) for part in each.split("\t")) for each in text.split("\n"))
