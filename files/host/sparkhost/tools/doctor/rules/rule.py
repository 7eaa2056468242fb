"""A known error, as one entry of data: what it looks like, what is behind it, what to do, and who says so.

A new one is a new entry in a module beside this one. Nothing else is needed: its own two examples test it, and
`make docs` writes it into docs/doctor.md.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sparkhost.tools.doctor.finding import Weight


class Rule(NamedTuple):
    """An error that people paste."""

    id: str
    """Stable, for programs. Several rules may share one."""
    weight: Weight
    pattern: str
    """A regular expression that finds it in one line; case does not matter."""
    why: str
    fix: str
    source: str
    """Where it was seen: a project's issue, a document, or this project's own run."""
    hit: str
    """A text in which the rule must find it."""
    miss: str
    """A text that looks like it, and in which the rule must find nothing."""
    unless: str = ""
    """An expression for a line anywhere in the text that shows that all went well in the end."""
    at_least: int = 1
    """How many lines must show it."""

    def line_in(self, lines: list[str], shown: list[str]) -> str | None:
        """The first of `shown` whose line shows the error; None where the text does not have it. `lines` and `shown`
        go together: a line as it is searched, and as it stands in the text."""
        wanted = re.compile(self.pattern, re.IGNORECASE)
        hits = [number for number, line in enumerate(lines) if wanted.search(line)]
        if len(hits) < self.at_least:
            return None
        if self.unless and any(re.search(self.unless, line, re.IGNORECASE) for line in lines):
            return None
        return shown[hits[0]]
