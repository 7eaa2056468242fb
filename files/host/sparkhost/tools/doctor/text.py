"""Known errors in a pasted text or a log, of which the end counts.

A line is searched without what journald or docker put before it, and a line of JSON by its message. What is not known
is said to be unknown, with the last lines that look like errors.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.rules import RULES, SAYS_MORE

# What of a log is read: its end, where errors are.
LARGEST = 1 << 22
# Lines that look like errors, shown where none of them is known.
MOST_SHOWN = 3
PREFIX = re.compile(
    r"^(?:\w{3} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.+Z-]+) \S+ [^\s:\[]+(?:\[\d+\])?: |^\S+ +\| "
    r"|^\(\w+ (?:rank=\d+ )?pid=\d+[^)]*\) (?:[A-Z]+ [\d: -]+\[[^\]]+\] )?"
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
LOOKS_BAD = re.compile(
    r"\b\w*(?:Error|Exception)\b\s*[:(]|\b(?:error|fatal|critical|panic)\b|\bfailed\b|^Traceback|\bAborted\b",
    re.IGNORECASE,
)
SOUNDS_FINE = re.compile(r"\b(?:0|no|without) (?:errors?|failed|failures)\b|errors?[=: ]+0\b", re.IGNORECASE)
MESSAGES = ("MESSAGE", "message", "msg", "log", "event", "error", "exception", "exc_info", "stack")


class Unknown(NamedTuple):
    """A text in which nothing is known."""

    where: str
    lines: list[str]
    """The last lines that look like errors."""


def read_end(stream: IO[bytes], largest: int = LARGEST) -> str:
    """The end of a file or of what comes through a pipe, from the beginning of a line on."""
    if stream.seekable():
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(length - largest - 1, 0))
        data = stream.read(largest + 1)
    else:
        kept: deque[bytes] = deque()
        held = 0
        while part := stream.read(1 << 16):
            kept.append(part)
            held += len(part)
            while held - len(kept[0]) > largest:
                held -= len(kept.popleft())
        data = b"".join(kept)
    if len(data) > largest:
        data = data[-largest - 1 :].partition(b"\n")[2] or data[-largest:]
    return data.decode(errors="replace")


def read_file(path: Path, largest: int = LARGEST) -> str:
    """The end of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return read_end(stream, largest)


def message_of(line: str) -> str:
    """What a line of a log says, without what its writer put around it."""
    line = ESCAPE.sub("", line).strip()
    if line.startswith("{"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return line
        if isinstance(value, dict):
            return "\n".join(str(value[key]) for key in MESSAGES if value.get(key)) or line
    return PREFIX.sub("", line)


def lines_of(text: str) -> tuple[list[str], list[str]]:
    """Lines as they are searched, and as they stand in the text: of the same number each."""
    searched, shown = [], []
    for line in text.splitlines():
        for part in message_of(line).splitlines() or [""]:
            searched.append(part.strip())
            shown.append(line.strip())
    return searched, shown


def look(text: str, where: str) -> Iterator[Finding]:
    """A finding for each known error in a text, with the line that shows it. `where`: as findings name the text."""
    searched, shown = lines_of(text)
    found = {}
    for rule in RULES:
        if rule.id not in found and (line := rule.line_in(searched, shown)) is not None:
            found[rule.id] = Finding(rule.id, rule.weight, where, line, rule.why, rule.fix)
    less = {other for id_ in found for other in SAYS_MORE.get(id_, ())}
    yield from (finding for id_, finding in found.items() if id_ not in less)


def unknown(text: str, where: str) -> Unknown:
    """What to show of a text in which nothing is known."""
    searched, shown = lines_of(text)
    bad = [
        line
        for part, line in zip(searched, shown, strict=True)
        if LOOKS_BAD.search(part) and not SOUNDS_FINE.search(part)
    ]
    return Unknown(where, list(dict.fromkeys(bad))[-MOST_SHOWN:])
