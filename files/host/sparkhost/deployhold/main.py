"""`sparkfleet lock` on a host: says who has it, holds it, gives it back.

Request: `{"action": "status" | "hold" | "release", "deploy": {"token", "by", "pid"}, "why": TEXT}`. Answer, one line:
`{"hold": LINE | null, "deploy": LINE | null}` as they stand afterwards; or `{"busy": LINE}`: nothing was changed.
`"was"`: the hold that a release has ended.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sparkhost.base import bounded, deploylock
from sparkhost.base.resource import Failed, one_line
from sparkhost.deployhold import hold


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Carries out one request. Raises Failed or OSError."""
    was = hold.read()
    if request["action"] == "hold":
        try:
            with deploylock.held(request["deploy"], release=True):
                hold.write(request["deploy"]["by"], flat(request["why"]))
        except deploylock.Busy as busy:
            return {"busy": one_line(busy)}
    elif request["action"] == "release":
        hold.remove()
    now = hold.read()
    ended = flat(was.line()) if was and request["action"] == "release" else None
    return {"hold": flat(now.line()) if now else None, "deploy": deploying(), "was": ended}


def deploying() -> str | None:
    """The deploy at work on this host; None without one."""
    try:
        holder = deploylock.read(bounded.read_text(deploylock.LOCK))
    except (Failed, OSError):
        return None
    return flat(holder.line()) if holder and holder.lives() else None


def flat(text: str) -> str:
    """A text as one line."""
    return " ".join(text.split())


def main(request: dict[str, Any]) -> int:
    """Prints the answer as one line of JSON. Exit code 1, and one line on stderr, where that cannot be done."""
    os.umask(0o022)
    try:
        answer = run(request)
    except (Failed, OSError) as failure:
        print(f"sparkhost: {one_line(failure)}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0
