"""A directory that stands for a host, and the watchdog's daemon as a process: real victims, real signals.

Its /proc is a directory with a meminfo of ours and links to the victims' real entries, so that no memory needs to be
filled and nothing else on this machine can be chosen.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SLEEP = "import time; kept = bytearray(b'x') * ({mib} << 20); print(flush=True); time.sleep(600)"
IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


def until(condition: Callable[[], Any]) -> Any:
    """Waits for a condition, 20 s at most; what it was in the end."""
    end = time.monotonic() + 20
    while not (value := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return value


class Host:
    """A directory that stands for a host, and the daemon that watches it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.state, self.run = folder / "watchdog.toml", folder / "state", folder / "run"
        (folder / "proc").mkdir()
        self.cgroups = folder / "cgroup"
        self.cgroups.mkdir()
        self.children: list[subprocess.Popen[str]] = []
        self.available(8000)
        self.set()

    def set(self, **values: float | str) -> None:
        """Writes the configuration: thresholds small enough to fall below, and what the test wants otherwise."""
        base: dict[str, float | str] = {"term_below": "200MiB", "kill_below": "100MiB", "smallest_victim": "16MiB"}
        merged = {**base, "recovery_wait": 0.5, "grace": 30.0, **values}
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in merged.items()))
        self.config.chmod(0o644)

    def available(self, mib: int) -> None:
        """What /proc/meminfo says from now on; written in one call, in place, as the daemon holds it open."""
        sizes = {"MemTotal": 16000, "MemFree": mib, "MemAvailable": mib}
        text = "".join(f"{name}: {size * 1024:8} kB\n" for name, size in sizes.items())
        descriptor = os.open(self.folder / "proc" / "meminfo", os.O_WRONLY | os.O_CREAT)
        os.pwrite(descriptor, text.encode(), 0)
        os.close(descriptor)

    def gets_tight(self) -> None:
        """Less than twice `term_below`: who comes from now on has not settled while there was plenty."""
        self.available(300)
        time.sleep(1.5)  # longer than the longest pause between two looks, and the fall is no rate any more

    def start(self, *command: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT / "files/host",
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def victim(self, code: str, mib: int) -> subprocess.Popen[str]:
        child = self.start(sys.executable, "-c", code.format(mib=mib))
        assert child.stdout is not None
        child.stdout.readline()
        (self.folder / "proc" / str(child.pid)).symlink_to(f"/proc/{child.pid}")
        return child

    def command(self, *arguments: str) -> list[str]:
        where = ["--config", self.config, "--proc-root", self.folder / "proc", "--cgroup-root", self.cgroups]
        places = ["--state-dir", self.state, "--run-dir", self.run, "--gpu-file", self.folder / "gpu.json"]
        return [sys.executable, "-m", "sparkhost.watchdog", *map(str, [*where, *places]), *arguments]

    def daemon(self, *arguments: str) -> subprocess.Popen[str]:
        child = self.start(*self.command("run", *arguments))
        until(lambda: (self.run / "state.json").exists() or child.poll() is not None)
        assert child.poll() is None
        return child

    def events(self) -> list[dict[str, Any]]:
        files = sorted((self.state / "events").glob("*.json")) if self.state.exists() else []
        return [json.loads(path.read_text()) for path in files]

    def event(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = until(lambda: next((e for e in self.events() if e["event"] == kind), None))
        return found


@contextlib.contextmanager
def made_host(folder: Path) -> Iterator[Host]:
    """A host in a folder; whatever it started has ended afterwards."""
    made = Host(folder)
    try:
        yield made
    finally:
        for child in made.children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.communicate(timeout=20)
