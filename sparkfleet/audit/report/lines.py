"""Lines of text for a terminal: wrapped, indented, and safe whatever they hold.

rich lays text out in general; thousands of lines of a kind known beforehand are laid out here at a tenth of the cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style

from sparkfleet.audit.model import Severity, Status
from sparkfleet.audit.text import cut, visible_lines

MOST = 1200
"""Characters of a host's text that are shown on a terminal."""
MOST_LINES = 12

BOLD, DIM = Style(bold=True), Style(dim=True)
STYLES = {
    Status.PASS: Style(color="green"),
    Status.FAIL: Style(color="red", bold=True),
    Status.WAIVED: Style(color="yellow"),
    Status.NOT_APPLICABLE: DIM,
    Status.ERROR: Style(color="magenta", bold=True),
    Status.UNREACHABLE: Style(color="magenta", bold=True),
}
SEVERITIES = {
    Severity.CRITICAL: Style(color="red", bold=True),
    Severity.HIGH: Style(color="red"),
    Severity.MEDIUM: Style(color="yellow"),
    Severity.LOW: DIM,
}
NEW_LINE = Segment("\n")


def shortened(text: str) -> list[str]:
    """A host's text as lines to show; the last one says how much was cut."""
    kept, more = cut(text, MOST)
    lines = visible_lines(kept).rstrip("\n").split("\n")
    if len(lines) > MOST_LINES:
        more += sum(len(line) + 1 for line in lines[MOST_LINES:])
        lines = lines[:MOST_LINES]
    if more:
        lines.append(f"(cut here: {more} more characters are in the JSON report)")
    return lines


def wrapped(text: str, width: int) -> Iterator[str]:
    """One line of printable text as lines of at most `width` cells, broken at spaces where there are some."""
    width = max(width, 1)
    while True:
        if len(text) <= width and (text.isascii() or cell_len(text) <= width):
            yield text
            return
        # A character may take two cells, so this is where to cut at the latest.
        most = len(text[:width] if text.isascii() else chop_cells(text, width)[0]) or 1
        at = text.rfind(" ", 1, most + 1)
        # Break in a word rather than leave more than half of the line empty.
        at = at if at > most // 2 else most
        yield text[:at].rstrip()
        text = text[at:].lstrip()
        if not text:
            return


def field(label: str, text: Iterable[str], width: int, *, indent: int = 12) -> Iterator[Segment]:
    """A label and its text, the text as a column of its own."""
    first = f"  {label}".ljust(indent)
    for line in text:
        for part in wrapped(line, width - indent):
            yield Segment(first, DIM if first.strip() else None)
            yield Segment(part)
            yield NEW_LINE
            first = " " * indent
