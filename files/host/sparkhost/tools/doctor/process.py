"""What is wrong with a running process, seen in /proc. It needs the rights of the process's user."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sparkhost.base.cgroups import cgroup_of
from sparkhost.base.containers import container
from sparkhost.base.units import MIB, Mistake, show_size
from sparkhost.launcher.gpu import within
from sparkhost.tools.doctor.finding import Finding, plain
from sparkhost.tools.doctor.stack import CUDART_12
from sparkhost.tools.doctor.venv import Venv, is_venv, text_of
from sparkhost.watchdog.process import parse_stat

LENGTHS = re.compile(
    r"--?(max[_-]?(seq(uence)?[_-]?)?(len|length)|max[_-]?model[_-]?len|cutoff[_-]?len|pack[_-]?length)$"
)
TRAINS = re.compile(r"--?(per[_-]device[_-]train[_-]batch[_-]size|train[_-]batch[_-]size|micro[_-]batch[_-]size)$")
IDLE_FOR = 1.0
"""Seconds over which a process is looked at to see whether it does anything."""


class Process(NamedTuple):
    """What /proc says of it, read once."""

    pid: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cgroup: str
    directory: Path
    libraries: tuple[str, ...]
    """Names of mapped files that look like libraries."""
    score: int
    """oom_score_adj."""

    @property
    def name(self) -> str:
        return f"process {self.pid} ({plain(' '.join(self.argv), 80)})"


def texts(path: Path) -> list[str]:
    """The parts of a file that ends each with a NUL (proc_pid_cmdline(5))."""
    return [part.decode(errors="replace") for part in path.read_bytes().split(b"\0")[:-1]]


def read(pid: int, proc: Path = Path("/proc")) -> Process:
    """A process.

    Raises:
        Mistake: there is none, or it is another user's.
    """
    base = proc / str(pid)
    try:
        argv = texts(base / "cmdline")
        environment = dict(item.partition("=")[::2] for item in texts(base / "environ") if "=" in item)
        mapped = {line.split(maxsplit=5)[5] for line in (base / "maps").read_text().splitlines() if "/" in line}
        directory = (base / "cwd").readlink()
        score = int((base / "oom_score_adj").read_text())
    except PermissionError as error:
        raise Mistake(f"process {pid}: is another user's: ask as that user, or as root") from error
    except OSError as error:
        raise Mistake(f"process {pid}: there is no such process") from error
    names = tuple(sorted(Path(path).name for path in mapped if ".so" in path))
    return Process(pid, tuple(argv), environment, cgroup_of(pid, str(proc)) or "/", directory, names, score)


def venv_of(process: Process) -> Venv | None:
    """The venv that it runs in: by its interpreter's path, else $VIRTUAL_ENV."""
    candidates = []
    if process.argv and "/" in process.argv[0]:
        candidates.append((process.directory / process.argv[0]).parent.parent)
    if named := process.environment.get("VIRTUAL_ENV"):
        candidates.append(Path(named))
    return next((Venv(path) for path in candidates if is_venv(path)), None)


def look(process: Process) -> Iterator[Finding]:
    """Every trouble of a process, but those of its venv."""
    yield from place(process)
    yield from loaded(process)
    yield from asked(process)
    yield from swapped(process)
    yield from hangs(process)


def place(process: Process) -> Iterator[Finding]:
    """Where it runs, and whether the kernel may kill it."""
    parts = process.cgroup.rsplit("/", 2)
    in_container = container(parts[-1]) or container("/".join(parts[-2:]))
    if not within(process.cgroup, "/training.slice") and not in_container:
        yield Finding(
            "not-in-slice",
            "warning",
            process.name,
            f"it runs in the cgroup {process.cgroup}",
            "nothing caps it, and when memory runs out it is not the first to be killed: it may take the host down",
            "start it with spark-run -- COMMAND",
        )
    if process.score < 0:
        yield Finding(
            "unkillable",
            "broken",
            process.name,
            f"its oom_score_adj is {process.score}",
            "the kernel kills everything else first; sessions of an sshd with OOMScoreAdjust=-1000 are like that",
            "start it with spark-run -- COMMAND; the measure ssh mends the sessions",
        )


def loaded(process: Process) -> Iterator[Finding]:
    """CUDA 12's runtime in the process, and where else libraries are looked for."""
    if old := [name for name in process.libraries if CUDART_12.fullmatch(name)]:
        yield Finding(
            "cudart-12-loaded",
            "warning",
            process.name,
            f"it has loaded {', '.join(old)}",
            "a part of it is built for CUDA 12, which does not support a GB10",
            "spark-doctor VENV names the distribution",
        )
    path = process.environment.get("LD_LIBRARY_PATH")
    if path is not None and path != "" and "" in path.split(":"):
        yield Finding(
            "library-path",
            "warning",
            process.name,
            f"LD_LIBRARY_PATH={path}",
            "an empty element is the current directory: libraries are loaded from wherever it was started",
            'export LD_LIBRARY_PATH="/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"',
        )


def option(argv: Sequence[str], name: str) -> str | None:
    """The value of `--name value` or `--name=value`; "" where it is the last word."""
    for number, word in enumerate(argv):
        head, equals, value = word.partition("=")
        if head.replace("-", "_") == f"__{name}":
            return value if equals else (argv[number + 1] if number + 1 < len(argv) else "")
    return None


def asked(process: Process) -> Iterator[Finding]:
    """What its command line asks for."""
    use = option(process.argv, "use_flash_attn")
    wants = any("flash_attention_2" in word for word in process.argv)
    if wants or (use is not None and use.lower() in ("", "true", "1", "yes") and "--use_flash_attn" in process.argv):
        yield Finding(
            "flash-attention-2",
            "warning",
            process.name,
            "its command line asks for flash attention 2",
            "transformers then wants the package flash-attn, which does not work on a GB10",
            "--attn_implementation sdpa (open-instruct: torch, formerly --use_flash_attn false)",
        )
    heads = [word.partition("=")[0] for word in process.argv]
    if any(map(TRAINS.match, heads)) and not any(map(LENGTHS.match, heads)):
        yield Finding(
            "no-length-cap",
            "warning",
            process.name,
            "it trains, and no option limits the length of a sequence",
            "memory is by tokens: one long sample in a batch makes the peak, perhaps after hours",
            "--max_seq_length 1024, or cut and drop long samples when the data is prepared",
        )


def swapped(process: Process, proc: Path = Path("/proc")) -> Iterator[Finding]:
    """A process, or a part of it, in swap."""
    for line in text_of(proc / str(process.pid) / "status").splitlines():
        if line.startswith("VmSwap:") and (size := int(line.split()[1]) * 1024) >= MIB:
            yield Finding(
                "swapped",
                "warning",
                process.name,
                f"{show_size(size)} of it are in swap",
                "a host that swaps stops answering",
                "swap off: the measure swap",
            )


def ticks(pid: int, proc: Path = Path("/proc")) -> int:
    """Processor time of a process, in ticks (proc_pid_stat(5): utime and stime)."""
    fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12])


def hangs(process: Process) -> Iterator[Finding]:
    """A vLLM that does nothing: at load it captures CUDA graphs, and is reported to hang there on a GB10."""
    words = " ".join(process.argv)
    if "vllm" not in words.lower() or "enforce-eager" in words.replace("_", "-"):
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        family = [process.pid, *descendants(process.pid)]
        before = sum(map(ticks, family))
        time.sleep(IDLE_FOR)
        used = (sum(map(ticks, family)) - before) / os.sysconf("SC_CLK_TCK")
        if used < 0.02 * IDLE_FOR:
            yield Finding(
                "vllm-idle",
                "note",
                process.name,
                f"it used {used:.2f} s of processor time in {IDLE_FOR:g} s",
                "if it is still loading its model it hangs: reported for CUDA graphs on a GB10",
                "--enforce-eager (in open-instruct --vllm_enforce_eager)",
            )


def descendants(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """All processes below one."""
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                children.setdefault(parse_stat((entry / "stat").read_bytes()).parent, []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found
