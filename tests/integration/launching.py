"""Hosts with the measure training_slice, and jobs on them as training users start them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.deploying import LAB_SETTINGS, Deployed, all_but, deploy, fleet
from tests.lab import Completed, Host, Lab

MIB = 2**20
SLICE = "/sys/fs/cgroup/training.slice"
# Holds so many MiB: bytes of its own that are written, not only promised.
HOLD = "python3 -c 'held = b\"x\" * ({mib} << 20); {then}'"
# Sends raw messages to the helper; prints one answer a line. Arguments: Python expressions of bytes.
ASK = """\
import socket, sys
for word in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:
        ours.settimeout(60)
        ours.connect("/run/sparkfleet/launcher.sock")
        try:
            ours.send(eval(word))
            print(ours.recv(8192).decode())
        except OSError as error:
            print(error.strerror)
"""


def training(lab: Lab, host: Host, folder: Path, **settings: Any) -> Path:
    """A fleet file that deploys this measure alone, with the lab's settings and these."""
    chosen = {**LAB_SETTINGS["training_slice"], **settings}
    return fleet(lab, [host], folder / "fleet.yaml", {**all_but("training_slice"), "training_slice": chosen})


def deployed(lab: Lab, host: Host, folder: Path, **settings: Any) -> Deployed:
    """Deploys it, which must go well."""
    result = deploy(lab, training(lab, host, folder, **settings))
    assert result.rc == 0, result.output
    return result


def spark_run(host: Host, words: str, user: str = "alice", before: str = "", timeout: float = 180) -> Completed:
    """`spark-run WORDS` in a session of the user's; `before`: what the shell does first."""
    return host.run(f"{before}spark-run {words}", user=user, check=False, timeout=timeout)


def detached(host: Host, command: str, user: str = "alice", words: str = "") -> str:
    """Starts a job that goes on by itself; its id."""
    done = spark_run(host, f"--no-preflight --detach {words} -- {command}", user)
    assert done.rc == 0, done.stderr
    assert re.fullmatch(r"[0-9a-f]{8}\n", done.stdout)
    return done.stdout.strip()


def unit_of(job: str, uid: int = 1001) -> str:
    """A job's unit; alice has uid 1001, bob 1002."""
    return f"spark-job-{uid}-{job}.service"


def runs(host: Host, job: str, uid: int = 1001) -> bool:
    """Whether a job has processes."""
    return host.run(f"grep -q . {SLICE}/{unit_of(job, uid)}/cgroup.procs", check=False).rc == 0


def asked(host: Host, user: str, *messages: bytes) -> list[str]:
    """What the helper answers to raw messages, one after the other."""
    words = " ".join(shlex.quote(repr(message)) for message in messages)
    return host.run(f"python3 - {words}", user=user, input=ASK, timeout=300).stdout.splitlines()


def request(action: str, **values: object) -> bytes:
    return json.dumps({"version": 1, "action": action, **values}).encode()


class Terminal:
    """A user's session with a terminal, typed into and read as by a person."""

    def __init__(self, host: Host, user: str, command: str) -> None:
        ssh, *words = host.client.words(user)
        self.process = subprocess.Popen(
            [ssh, "-tt", "-o", "ControlPath=none", *words, "--", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self.seen = b""

    def read_until(self, text: bytes) -> None:
        """Reads until the text has been shown; pytest's own limit ends a wait for ever."""
        assert self.process.stdout is not None
        while text not in self.seen:
            data = os.read(self.process.stdout.fileno(), 4096)
            assert data, self.seen
            self.seen += data

    def type(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self) -> int:
        """Waits for the session's end; its exit code."""
        assert self.process.stdout is not None
        self.seen += self.process.stdout.read()
        return self.process.wait(timeout=120)


def summary(done: Completed) -> str:
    """What spark-run said at the end."""
    return "\n".join(line for line in done.stderr.splitlines() if line.startswith("spark-run: job "))


def properties(host: Host, unit: str, *names: str) -> Mapping[str, str]:
    """Properties of a unit as PID 1 has them."""
    shown = host.run(f"systemctl show -p {','.join(names)} {unit}").stdout
    return dict(line.split("=", 1) for line in shown.splitlines())
