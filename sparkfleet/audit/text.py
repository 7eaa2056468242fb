"""Text of hosts as it may be shown: nothing in it acts on a terminal, on a page, or on the order of its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

from sparkfleet.settings.problems import escaped


def visible(text: str) -> str:
    r"""The text in one line, with everything that is not a printable character written out, such as `\x1b` or `\u202e`.

    Control characters, bidirectional controls, zero-width characters and lone surrogates are not printable.
    """
    return text if text.isprintable() else escaped(text)


def visible_lines(text: str) -> str:
    """As `visible`, with line feeds kept and tabs as four spaces; a carriage return before a line feed is dropped."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return "\n".join(visible(line) for line in text.split("\n"))


def cut(text: str, most: int) -> tuple[str, int]:
    """The first `most` characters, and how many were cut off."""
    return (text, 0) if len(text) <= most else (text[:most], len(text) - most)


def listed(names: Sequence[str], most: int = 8) -> str:
    """`spark1, spark2 and 3 more`."""
    shown = ", ".join(visible(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 host`, `2 hosts`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
