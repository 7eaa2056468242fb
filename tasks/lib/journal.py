"""What happened on each host of a deploy, as JSON lines for `sparkfleet deploy` and `sparkfleet drift`.

pyinfra's exit code is 0 for a dry run with changes, for a `--limit` that fits nobody and after Ctrl-C, and its JSON
leaves out hosts that it did not reach. So the operations say what they find, where `$SPARKFLEET_JOURNAL` names a file.
"""

from __future__ import annotations

import json
import os
from typing import Any

JOURNAL = "SPARKFLEET_JOURNAL"


def note(host: str, event: str, **facts: Any) -> None:
    """Adds one line; nothing where no journal is kept. One write(2) a line: hosts do not mix."""
    path = os.environ.get(JOURNAL)
    if not path:
        return
    line = json.dumps({"host": host, "event": event, **facts}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
