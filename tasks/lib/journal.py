"""What happened on each host of a deploy, as JSON lines for `sparkfleet deploy` and `sparkfleet drift`.

pyinfra's exit code is 0 for a dry run with changes, for a `--limit` that fits nobody and after Ctrl-C, and its JSON
leaves out hosts that it did not reach. So the operations say what they find, where `$SPARKFLEET_JOURNAL` names a file.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

JOURNAL = "SPARKFLEET_JOURNAL"


def note(host: str, event: str, **facts: Any) -> None:
    """Adds one line; nothing where no journal is kept. One write(2) a line: hosts do not mix.

    Where a line cannot be written (a full disk), the journal is deleted, and the run goes on: to leave hosts half-way
    is worse than to say nothing of them. Without that line it would say something else than what was done.
    """
    path = os.environ.get(JOURNAL)
    if not path:
        return
    line = (json.dumps({"host": host, "event": event, **facts}) + "\n").encode()
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            if os.write(descriptor, line) == len(line):
                return
        finally:
            os.close(descriptor)
    with contextlib.suppress(OSError):
        Path(path).unlink()
