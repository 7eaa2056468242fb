"""A step's process: a group of its own, which is killed when it is over its time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Ended(NamedTuple):
    """What a step left behind. `code`: its exit code; minus the signal's number where one ended it."""

    code: int
    out: str
    error: str


def run(words: Sequence[str], seconds: float, env: Mapping[str, str] | None = None) -> Ended | None:
    """Runs a command to its end; None where that did not come within so many seconds."""
    with subprocess.Popen(
        words,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, error = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            # Not waited for: what it started in a session of its own may hold the pipes for ever.
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()
            return None
    return Ended(process.returncode, out, error)
