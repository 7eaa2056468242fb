"""Feeds each parser of the host code with odd and hostile input, and says how much of it did what it must not.

    python -m tests.bench.fuzz_host [--inputs 10000] [--seed 1] [PARSER …]

What must hold, of every input: it is read, or refused as `Refused` or `Failed` in one line of at most 1000 characters;
nothing else is raised; what has an inverse gives the bytes back. tests/unit/test_fuzz_host.py runs a few hundred of
each. Exit code 1: something did not hold; the input is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sparkhost.base import deploylock, hardware, history
from sparkhost.base.block import Block, put_in, take_out
from sparkhost.base.diff import text_diff
from sparkhost.base.pid1 import microseconds
from sparkhost.base.resource import Failed, Refused
from sparkhost.cuda_env import ldconfig
from sparkhost.cuda_env.environment import assignments, environment_lines, other_values
from sparkhost.swap import fstab, swap
from sparkhost.training_slice import docker, people, people_keys
from sparkhost.vllm_container import resources as vllm_container

Check = Callable[[bytes], None]
PIECES = (
    b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xe2\x80\xa8", b"\x1b[2J", b" ", b"\t", b"\f", b"#", b"\\", b'"', b"'",
    b"{", b"}", b"[", b"]", b":", b",", b"=", b"null", b"true", b"NaN", b"Infinity", b"1e400", b"-1", b"9" * 30,
    b"none swap sw 0 0", b"/swap.img none swap sw 0 0\n", b"UUID=1 / ext4 defaults 0 1", b"cifs password=x", b"swap",
    b"# begin: managed by sparkfleet (measure: training_slice)", b"# end: managed by sparkfleet (measure: x)",
    b"# end: managed by sparkfleet (measure: training_slice)", b" (the file is new)", b" (the line above had no end)",
    b"# swapped off by sparkfleet: ", b"ssh-ed25519 AAAA x", b"export ", b"PATH=", b"CUDA_HOME=/usr", b"DEFAULT=",
    b'"cgroup-parent"', b'"live-restore"', b'"exec-opts"', b'"members"', b'"keys"', b'"locked"', b'"created"',
    b'"kernel.panic"', b'"before"', b'"ours"', b'"format"', b'"measures"', b'"deploys"', b'"images"', b'"token"',
    b"\tlibx.so.1 (libc6) => /lib/libx.so.1", b" => ", b"Filename Type Size Used Priority\n", b"\\040(deleted)",
    b"Thu 2026-11-26 21:06:35.617194 UTC", b"[" * 3000, b"a" * 3000,
)  # fmt: skip
SEEDS = (
    b'{"cgroup-parent": "training.slice", "exec-opts": ["x"], "log-opts": {"max-size": "1m"}, "live-restore": true}',
    b'{"group": true, "members": ["ann"], "keys": ["ann"], "created": ["ann"], "locked": {"ann": ""}}',
    b'{"kernel.panic": {"before": "0", "ours": ["30"]}}',
    b'{"cgroup-parent": null, "live-restore": true}',
    b'{"format": 1, "measures": {"swap": {"result": "clean"}}, "deploys": [{"measures": {"swap": {"result": "x"}}}]}',
    b'{"images": ["a@sha256:1"]}',
    b'{"token": "t", "by": "b", "since": 1, "used": 1, "pid": 1, "started": 1, "over_ssh": true}',
    b"# /etc/fstab\nUUID=1 / ext4 defaults 0 1\n/swap.img none swap sw 0 0\r\n",
    b"Filename\tType\tSize\tUsed\tPriority\n/swap.img file 131068 2048 -2\n",
    b"ssh-ed25519 AAAA a\n# begin: managed by sparkfleet (measure: training_slice)\nx\n",
    b"PATH=/usr/bin\nLD_LIBRARY_PATH=/usr/local/cuda/lib64\n",
)


def inputs(count: int, seed: int) -> Iterator[bytes]:
    """Bytes: pieces in any order, valid files cut, doubled and with pieces put in, and plain noise."""
    chance = random.Random(seed)
    for number in range(count):
        kind = number % 4
        if kind == 0:
            yield b"".join(chance.choices(PIECES, k=chance.randrange(12)))
        elif kind == 1:
            yield chance.randbytes(chance.randrange(200))
        else:
            text = bytearray(chance.choice(SEEDS))
            for _ in range(chance.randrange(4)):
                at, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
                part = chance.choice((chance.choice(PIECES), bytes(text[at:end]) * 2, b""))
                text[at : end if kind == 2 else at] = part
            yield bytes(text)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def same(left: object, right: object) -> None:
    if left != right:
        raise AssertionError(f"{left!r:.300} is not {right!r:.300}")


def check_fstab(data: bytes) -> None:
    once, numbers = fstab.comment_out(data)
    same(fstab.comment_out(once), (once, []))
    if fstab.MARKER not in data:
        same(fstab.put_back(once), (data, numbers))


def check_swaps(data: bytes) -> None:
    swap.active_swaps(text_of(data))


def check_keys(data: bytes) -> None:
    text = text_of(data)
    once = people_keys.with_keys(text, ["ssh-ed25519 AAAA ours"])
    same(people_keys.with_keys(once, ["ssh-ed25519 AAAA ours"]), once)
    if people_keys.BLOCK.begin not in text:
        same(people_keys.with_keys(once, []), text)


def check_environment(data: bytes) -> None:
    text, block = text_of(data), Block("cuda_env", ("PATH", "CUDA_HOME"))
    assignments(text)
    other_values(text, {"PATH": "x"})
    lines = environment_lines(take_out(text, block).text, {"CUDA_HOME": "/usr"}, {"PATH": "/usr/local/cuda/bin"})
    if block.begin not in text:
        same(take_out(put_in(text, lines, block), block).text, text)


def check_daemon(data: bytes) -> None:
    text = text_of(data)
    before = docker.parsed(text)
    after = docker.merged(text, cgroup_parent="training.slice", live_restore=True)
    ours = {"cgroup-parent": "training.slice", "live-restore": True}
    same(docker.parsed(after), {**before, **ours})


def stored(module: object, name: str, read: Callable[[], object]) -> Check:
    """A parser of a file whose path is a constant of its module."""

    def check(data: bytes) -> None:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:  # noqa: PTH112
            path, original = Path(folder, "file"), getattr(module, name)
            path.write_bytes(data)
            setattr(module, name, path)
            try:
                json.dumps(repr(read()))
            finally:
                setattr(module, name, original)

    return check


PARSERS: dict[str, Check] = {
    "fstab": check_fstab,
    "/proc/swaps": check_swaps,
    "authorized_keys": check_keys,
    "/etc/environment": check_environment,
    "daemon.json": check_daemon,
    "docker-before.json": stored(docker, "RECORD", docker.read_record),
    "sysctl-before.json": stored(hardware, "RECORD", hardware.read_record),
    "training-people.json": stored(people, "RECORD", people.read_record),
    "applied.json": stored(history, "APPLIED", lambda: (history.read(), history.brief())),
    "vllm-container.json": stored(vllm_container, "RECORD", vllm_container.pulled),
    "the deploy lock": lambda data: (deploylock.read(text_of(data)), None)[1],
    "ldconfig -p": lambda data: (ldconfig.cached_directories(text_of(data)), None)[1],
    "times of systemctl": lambda data: (microseconds(text_of(data)), None)[1],
    "--diff": lambda data: (text_diff("x", data, data[::-1]), None)[1],
}


def problem_of(check: Check, data: bytes) -> str:
    """What an input did that it must not; "" for nothing."""
    try:
        check(data)
    except (Refused, Failed) as error:
        line = str(error)
        return "" if line and "\n" not in line and len(line) <= 1000 else f"no line for a person: {line!r:.200}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parsers", nargs="*", metavar="PARSER", help=f"of {', '.join(PARSERS)}; all of them by default")
    parser.add_argument("--inputs", type=int, default=10_000, help="of each")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bad = 0
    for name in options.parsers or PARSERS:
        started, wrong = time.monotonic(), 0
        for data in inputs(options.inputs, options.seed):
            if problem := problem_of(PARSERS[name], data):
                wrong += 1
                if wrong <= 3:
                    print(f"{name}: {problem}\n    {data!r:.300}")
        print(f"{name}: {options.inputs} inputs, {wrong} wrong, {time.monotonic() - started:.1f} s", flush=True)
        bad += wrong
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
