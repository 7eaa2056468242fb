"""SSH hosts of a simulation: one process that listens on many ports of 127.0.0.1, one for each host. A double.

    .venv-bench/bin/python -m tests.bench.ssh_hosts --ports 2600-2619 --key KEY --host-key KEY --rtt 0.02

The connection is real: sockets, key exchange, login with a key, channels, standard input and exit codes. What is played
is a host's answer, which costs no time unless `--host-time` says so:

- sparkhost's requests: nothing differs, and the history is what a `record` request told before;
- Ansible's modules: what `tests/bench/ansible/record.py` has recorded, where `--answers` names it; else what
  `tests/bench/ansible/plausible.py` makes up from the variables of the playbook, where `--converged` names them;
- the reader of `sparkfleet status`: a line a second, as `tests/bench/status.py` describes it;
- anything else: exit code 0 and no output.

`--rtt` is added to every exchange as a network of that round trip would: packets are handed on half of it later in each
direction, in order, and the first one a whole round trip later, for TCP's own handshake.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shlex
import signal
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from tests.bench.ansible.payload import module_of, shell_answer
from tests.bench.ansible.plausible import Converged, NoAnswer

BATCH = 256 * 1024
GIB = 2**30
STATUS = "exec $S /usr/bin/python3"
"""How the command that starts a status reader goes."""


class Host:
    """What is known of one host between two connections."""

    def __init__(self, answers: dict[str, str], converged: Converged | None) -> None:
        self.last: dict[str, Any] | None = None
        self.counted: Counter[str] = Counter()
        self.answers = answers
        self.modules = converged

    def answer(self, command: str, given: bytes) -> tuple[str, tuple[bytes, bytes, int]]:
        """The kind of command (sparkhost, module, other); standard output and error, and the exit code."""
        ours = "from sparkhost.base.converge import main" in command
        key = None if ours else module_of(given)
        kind = "sparkhost" if ours else "module" if key else "other"
        self.counted[kind] += 1
        if ours:
            return kind, (json.dumps(self.converged(unpacked(given))).encode() + b"\n", b"", 0)
        return kind, self.ansible(command, key)

    def ansible(self, command: str, key: str | None) -> tuple[bytes, bytes, int]:
        """The answer to a module of Ansible, or to a shell command around it."""
        if key is None:
            return (shell_answer(command, "/root") or "").encode(), b"", 0
        if key in self.answers:
            return self.answers[key].encode(), b"", 0
        if self.modules is None:
            return b"", f"ssh_hosts: no recorded answer for {key}\n".encode(), 1
        try:
            return self.modules.answer(key).encode(), b"", 0
        except NoAnswer as error:
            return b"", f"ssh_hosts: {error}\n".encode(), 1

    def converged(self, request: dict[str, Any]) -> dict[str, Any]:
        """What sparkhost answers on a host where nothing differs."""
        if request["action"] == "record":
            deploy, results = request["deploy"], request["results"]
            told = {name: {"result": results.get(name, "clean")} for name in deploy["measures"]}
            self.last = {**deploy, "measures": told, "ended": "2026-01-01T00:00:00Z"}
        same: dict[str, Any] = {"changes": [], "warnings": [], "refused": [], "error": None}
        return {
            "applied": None,
            "notes": [],
            "unproved": False,
            "plan": {measure["name"]: same for measure in request["measures"]},
            "history": {"measures": {}, "last": self.last},
        }


def unpacked(given: bytes) -> dict[str, Any]:
    """As `tasks.lib.remote.unpacked`, which this program's own environment cannot import."""
    return dict(json.loads(zlib.decompress(base64.b64decode(given))))


def times(text: str) -> dict[str, float]:
    """`sparkhost=0.3,module=0.1`, or one number for all kinds. Raises ValueError."""
    if "=" not in text:
        return dict.fromkeys(("sparkhost", "module", "other"), float(text))
    parts = (part.partition("=") for part in text.split(","))
    return {kind: float(seconds) for kind, _, seconds in parts}


@dataclass(frozen=True)
class Forward:
    """A real host that answers instead, to record what it says."""

    words: list[str]
    """What runs a command there, given as one more word."""
    password: str
    """Of sudo."""

    async def answer(self, command: str, given: bytes) -> tuple[bytes, bytes, int]:
        """As root there. sudo takes its password from the first line of the input."""
        as_root = f"sudo -S -p '' -- /bin/sh -c {shlex.quote(command)}"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self.words, as_root, stdin=pipe, stdout=pipe, stderr=pipe)
        stdout, stderr = await process.communicate(f"{self.password}\n".encode() + given)
        return stdout, stderr, process.returncode or 0


async def run(
    process: asyncssh.SSHServerProcess[bytes], host: Host, host_time: Mapping[str, float], forward: Forward | None
) -> None:
    """One command."""
    command = process.command or ""
    if STATUS in command:
        await stream(process)
        return
    try:
        # Ansible gives a command without input a terminal that it closes: only what reads its input waits for the end.
        given = await process.stdin.read() if "python3" in command else b""
        if forward is None:
            kind, (stdout, stderr, rc) = host.answer(command, given)
        else:
            kind, (stdout, stderr, rc) = "forwarded", await forward.answer(command, given)
            if (key := module_of(given)) and not rc:
                host.answers[key] = stdout.decode()
    except Exception:
        traceback.print_exc()
        process.exit(70)
        raise
    if seconds := host_time.get(kind, 0.0):
        await asyncio.sleep(seconds)
    process.stdout.write(stdout)
    process.stderr.write(stderr)
    process.exit(rc)


async def stream(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """A Spark with four jobs: memory moves every second, and every fifth who holds it."""
    await process.stdin.readline()
    second = 0
    while True:
        line: dict[str, Any] = {"v": 1, "at": time.time(), "memory": memory(second)}
        if not second:
            line |= {"up": 86400, "floor": {"term": 16 * GIB, "kill": 8 * GIB, "problem": ""}, "events": []}
            line |= {"release": {"version": "0.1.0"}, "gpus": [{"name": "NVIDIA GB10", "clock": 2100, "most": 3003}]}
        if not second % 5:
            jobs = [
                {"id": f"0000000{i}", "owner": f"user{i}", "cpu": GIB * i, "gpu": GIB * (8 + (second + i) % 5)}
                for i in range(4)
            ]
            line |= {"jobs": [{**job, "name": "sft", "promise": 30 * GIB} for job in jobs]}
            line |= {"owners": [{key: job[key] for key in ("owner", "cpu", "gpu")} for job in jobs]}
        try:
            process.stdout.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            await asyncio.sleep(1)
        except (OSError, asyncssh.Error):
            return
        if process.stdin.at_eof() or process.is_closing():
            return
        second += 1


def memory(second: int) -> dict[str, int]:
    gpu = (40 + second % 7) * GIB
    return {
        "total": 120 * GIB,
        "available": 70 * GIB - gpu // 2,
        "free": GIB,
        "cpu": 20 * GIB,
        "gpu": gpu,
        "gpu_own": 0,
    }


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, first: float) -> None:
    """Hands on what comes, `delay` seconds later and in order; what comes first, `first` seconds later than that."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await line.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    delivery = asyncio.create_task(deliver())
    extra = first
    try:
        while data := await reader.read(BATCH):
            line.put_nowait((loop.time() + delay + extra, data))
            extra = 0.0
    except ConnectionError:
        pass
    line.put_nowait((loop.time() + delay, b""))
    await asyncio.gather(delivery, return_exceptions=True)


async def relay(port: int, target: int, rtt: float) -> asyncio.Server:
    """Listens on `port` for the host that listens on `target`, a network of this round trip away."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, back, rtt / 2, 0.0), pump(there, writer, rtt / 2, rtt))

    return await asyncio.start_server(connected, "127.0.0.1", port, backlog=512)


async def serve(arguments: argparse.Namespace) -> None:
    answers = json.loads(arguments.answers.read_text()) if arguments.answers else {}
    forward = Forward(**json.loads(arguments.forward.read_text())) if arguments.forward else None
    first, _, last = arguments.ports.partition("-")
    converged = Converged(json.loads(arguments.converged.read_text())) if arguments.converged else None
    hosts = {port: Host(answers, converged) for port in range(int(first), int(last or first) + 1)}
    kept: list[object] = []
    for port, host in hosts.items():

        def factory(process: asyncssh.SSHServerProcess[bytes], host: Host = host) -> Any:
            return run(process, host, arguments.host_time, forward)

        server = await asyncssh.listen(
            "127.0.0.1",
            0 if arguments.rtt else port,
            server_host_keys=[str(arguments.host_key)],
            authorized_client_keys=str(arguments.key) + ".pub",
            process_factory=factory,
            encoding=None,
            backlog=64,
            keepalive_interval=0,
        )
        kept.append(server)
        if arguments.rtt:
            kept.append(await relay(port, server.get_port(), arguments.rtt))
    print("listening", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    while not stop.is_set():
        # A line on standard input asks what was counted since the last one, or recorded; its end ends the hosts.
        asked = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        if not asked:
            break
        if asked == "recorded\n":
            print(json.dumps(answers), flush=True)
            continue
        print(json.dumps([host.counted for host in hosts.values()]), flush=True)
        for host in hosts.values():
            host.counted.clear()
    os._exit(0)  # connections that are open are not waited for


def main() -> None:
    parser = argparse.ArgumentParser(description="SSH hosts of a simulation on 127.0.0.1")
    parser.add_argument("--ports", required=True, help="FIRST-LAST")
    parser.add_argument("--key", required=True, type=Path, help="whose public key may log in, as any user")
    parser.add_argument("--host-key", required=True, type=Path)
    parser.add_argument("--rtt", type=float, default=0.0, help="seconds")
    parser.add_argument(
        "--host-time", type=times, default={}, help="seconds by kind of command: sparkhost=0.3,module=0.1"
    )
    parser.add_argument("--forward", type=Path, help="JSON: a real host that answers, and is recorded")
    parser.add_argument("--answers", type=Path, help="recorded answers of Ansible's modules")
    parser.add_argument("--converged", type=Path, help="vars.json of the playbook: answers are made up from it")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
