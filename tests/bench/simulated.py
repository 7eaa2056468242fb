"""A simulated fleet for benchmarks: keys, a fleet file, and the process that plays its hosts (`ssh_hosts`)."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

ROOT = Path(__file__).resolve().parents[2]
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
FIRST_PORT = 24600
"""Below the range from which Linux takes ports for outgoing connections."""


class BenchError(Exception):
    """One line that says why no figure can be had."""


@dataclass(frozen=True)
class Address:
    """How a host is reached."""

    name: str
    port: int
    user: str
    key: Path


class SimulatedFleet:
    """`count` hosts on 127.0.0.1, reached as root, `rtt` seconds of round trip away. A context manager."""

    def __init__(
        self,
        directory: Path,
        count: int,
        rtt: float = 0.0,
        answers: Path | None = None,
        host_time: str = "0",
        converged: Path | None = None,
        first_port: int = FIRST_PORT,
        forward: Path | None = None,
    ) -> None:
        self.directory = directory
        self.key, self.host_key = directory / "key", directory / "host_key"
        for path in (self.key, self.host_key):
            if not path.exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        ports = range(first_port, first_port + count)
        self.hosts = [Address(f"sim{port - first_port + 1}", port, "root", self.key) for port in ports]
        public = " ".join((directory / "host_key.pub").read_text().split()[:2])
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.write_text("".join(f"[127.0.0.1]:{port} {public}\n" for port in ports))
        self.words = [
            *(str(BENCH_PYTHON), "-m", "tests.bench.ssh_hosts"),
            *("--ports", f"{ports.start}-{ports.stop - 1}", "--key", str(self.key), "--host-key", str(self.host_key)),
            *("--rtt", str(rtt), "--host-time", host_time),
            *(("--answers", str(answers)) if answers else ()),
            *(("--forward", str(forward)) if forward else ()),
            *(("--converged", str(converged)) if converged else ()),
        ]
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        process = subprocess.Popen(
            self.words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, text=True
        )
        self.process = process
        if not process.stdout or process.stdout.readline() != "listening\n":
            raise BenchError("the simulated hosts did not start: see above")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=30)

    def commands(self) -> list[Counter[str]]:
        """By host what commands it was sent since this was last asked: sparkhost, module (of Ansible), other."""
        return [Counter(one) for one in self._asked("count")]

    def recorded(self) -> dict[str, str]:
        """Module with its arguments → what it answered, where a real host stands behind this one."""
        return dict(self._asked("recorded"))

    def _asked(self, what: str) -> Any:
        if self.process is None or not self.process.stdin or not self.process.stdout:
            raise BenchError("the simulated hosts are not running")
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def fleet_file(self, settings: dict[str, object]) -> Path:
        """A fleet file that names these hosts."""
        path = self.directory / "fleet.yaml"
        path.write_text(yaml.safe_dump(fleet(self.known_hosts, self.hosts, settings)))
        return path


def fleet(known_hosts: Path, hosts: list[Address], settings: dict[str, object]) -> dict[str, object]:
    """The content of a fleet file."""
    return {
        "version": 1,
        "known_hosts": str(known_hosts),
        "defaults": settings,
        "hosts": {
            host.name: {"address": "127.0.0.1", "port": host.port, "user": host.user, "ssh_key": str(host.key)}
            for host in hosts
        },
    }
