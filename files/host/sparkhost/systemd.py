"""systemd: reload its configuration when unit files changed, and start what is wanted again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.resource import Change, Context, Failed, Resource

UNIT_DIRECTORY = "/etc/systemd/system"


def run(*arguments: str, timeout: float = 90.0) -> str:
    """The standard output of a command.

    Raises:
        Failed: exit code other than 0, or no answer within `timeout` seconds; with the last line it printed.
    """
    try:
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(arguments)}: no answer within {timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise Failed(f"{arguments[0]}: no such command on this host") from error
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise Failed(f"{' '.join(arguments)}: exit code {result.returncode}: {lines[-1]}")
    return result.stdout


def units_loaded_at() -> int:
    """When PID 1 last read its unit files, in microseconds since the epoch (org.freedesktop.systemd1(5))."""
    answer = run(
        "busctl",
        "get-property",
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "UnitsLoadTimestamp",
    )
    return int(answer.split()[1])


def changed_at(path: Path) -> int:
    """When a file last appeared, changed or (by its nearest directory) went away, in microseconds."""
    while not path.exists():
        path = path.parent
    return path.stat().st_ctime_ns // 1000


@dataclass(frozen=True)
class DaemonReload(Resource):
    """`systemctl daemon-reload`, when one of `paths` changed after PID 1 last read its unit files.

    The moment of change is compared, not only what this run wrote: a controller that died between writing
    and reloading is made up for by the next run.
    """

    kind: ClassVar[str] = "daemon_reload"
    paths: list[str]

    def plan(self, context: Context) -> Sequence[Change]:
        pending = sorted({c.what for c in context.pending} & set(self.paths))
        if pending:
            return [Change("systemd", f"daemon-reload, for {', '.join(pending)}")]
        loaded = units_loaded_at()
        # The loading itself takes a moment, and ctime ticks with the kernel's timer: equal counts as loaded.
        newer = [path for path in self.paths if loaded < changed_at(Path(path))]
        return [Change("systemd", f"daemon-reload, for {', '.join(newer)}")] if newer else []

    def apply(self) -> None:
        os.sync()
        run("systemctl", "daemon-reload")
