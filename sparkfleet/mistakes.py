"""What nobody has foreseen: an exception that ends one piece of a run, and is told as one line."""

from __future__ import annotations

import os
import sys
import traceback

from sparkfleet.settings.problems import escaped

VERBOSE = "SPARKFLEET_VERBOSE"
"""Set by `sparkfleet --verbose`, for pyinfra's process as well: tracebacks are shown."""
LONGEST = 300


def mistake(error: BaseException) -> str:
    """The line about an exception that no code expects; its traceback goes to stderr where that is wanted.

    For the last `except Exception` around one host, one measure, one control: the others go on.
    """
    if os.environ.get(VERBOSE):
        sys.stderr.write("".join(f"{escaped(line)}\n" for line in _lines(error)))
        more = ""
    else:
        more = " (sparkfleet --verbose … has the traceback)"
    said = escaped(" ".join(str(error).split()))[:LONGEST]
    return f"a mistake of ours: {type(error).__name__}{f': {said}' if said else ''}{more}"


def _lines(error: BaseException) -> list[str]:
    # limit: of a recursion without end the outermost and innermost calls are enough.
    text = "".join(traceback.format_exception(error, limit=-40))
    return text.splitlines()
