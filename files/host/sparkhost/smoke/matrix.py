"""Starts the steps of the smoke test, one process each, and judges what they print."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparkhost.base.files import make_directories, write_atomic
from sparkhost.smoke import child
from sparkhost.smoke.steps import MARK
from sparkhost.stack.store import SMOKE

STEPS = Path(__file__).with_name("steps.py")
SECONDS = 180.0
"""Most that a step may take; the first import of torch from a cold disk is most of it."""
NOT_SEEN = 3
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
"""Nothing is asked of, or told to, anybody else."""
TITLES = {
    "device": "torch finds the GPU",
    "matmul_bf16": "bf16 matmul",
    "sdpa_cudnn": "SDPA, cuDNN",
    "sdpa_flash": "SDPA, flash",
    "triton_kernel": "Triton kernel",
    "ptxas": "ptxas knows sm_121a",
    "libraries": "CUDA libraries of the stack only",
    "vllm_extension": "vLLM's extension",
    "vllm_generate": "vLLM generates",
}


@dataclass(frozen=True)
class Row:
    """One step. `verdict`: pass, fail, or not run; a pass has the GPU that it was seen on."""

    step: str
    verdict: str
    told: str
    """What was measured, or why it failed or was not run."""
    gpu: str = ""
    capability: str = ""
    seconds: float = 0.0


def tried(python: str, step: str, seconds: float = SECONDS, steps: Path = STEPS) -> Row:
    """Runs one step with the stack's Python. A crash, a hang and nonsense are one failed row each."""
    began = time.monotonic()
    ended = child.run([python, "-I", str(steps), step], seconds, {**os.environ, **OFFLINE})
    if ended is None:
        return Row(step, "fail", f"no answer within {seconds:.0f} s: killed", seconds=seconds)
    took = time.monotonic() - began
    return judged(step, *ended, took)


def judged(step: str, code: int, out: str, error: str, took: float) -> Row:
    """What a step's end says. Only a line with a GPU's name, its capability and a true `ok` is a pass."""
    lines = [line.removeprefix(MARK) for line in out.splitlines() if line.startswith(MARK)]
    if code or len(lines) != 1:
        last = next((line.strip() for line in reversed(error.splitlines()) if line.strip()), "it printed nothing")
        ended = f"killed by {name_of(-code)}" if code < 0 else f"exit code {code}"
        return Row(step, "fail", f"{ended}: {plain(last)}", seconds=took)
    try:
        told = json.loads(lines[0])
        if "missing" in told:
            return Row(step, "not run", f"{plain(str(told['missing']))} is not in the stack", seconds=took)
        ok, gpu, capability = told.pop("ok"), str(told.pop("gpu")), str(told.pop("capability"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Row(step, "fail", f"it printed {plain(lines[0])}", seconds=took)
    seen = ", ".join(f"{key} {value}" for key, value in told.items())
    verdict = "pass" if ok is True and gpu and capability else "fail"
    return Row(step, verdict, plain(seen), plain(gpu), plain(capability), took)


def name_of(number: int) -> str:
    """A signal's name; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def plain(text: str, most: int = 200) -> str:
    """One line that a terminal shows as it is."""
    return "".join(char if char.isprintable() else "?" for char in text)[:most]


def smoke(python: str, release: str, run: Callable[[str, str], Row] = tried) -> dict[str, Any]:
    """All steps; those behind the first are not run where there is no GPU."""
    rows = [run(python, "device")]
    for step in list(TITLES)[1:]:
        if rows[0].verdict == "pass":
            rows.append(run(python, step))
        else:
            rows.append(Row(step, "not run", "there is no GPU that torch can use"))
    return {
        "version": 1,
        "release": release,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "gpu": rows[0].gpu,
        "capability": rows[0].capability,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "rows": [asdict(row) for row in rows],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The matrix, for a person."""
    gpu = f"{found['gpu']} (sm_{found['capability'].replace('.', '')})" if found["gpu"] else "no GPU"
    told = [f"{found['release']} on {gpu}, {found['machine']}, {found['time']}"]
    for row in found["rows"]:
        told.append(f"  {row['verdict']:<8} {TITLES[row['step']]:<33} {row['seconds']:5.1f} s  {row['told']}")
    return told


def keep(found: dict[str, Any], folder: Path = SMOKE) -> Path:
    """Notes the last result of a release. Raises OSError, such as for who is not root."""
    make_directories(folder)
    path = folder / f"{found['release']}.json"
    write_atomic(path, (json.dumps(found, indent=1) + "\n").encode(), 0o644)
    return path


def main(python: str, release: str, words: Sequence[str], folder: Path = SMOKE) -> int:
    """Exit code 0 where nothing failed on a GPU, 1 where something did, 3 where there is none: nothing is known."""
    found = smoke(python, release)
    if os.geteuid() == 0:
        keep(found, folder)
    print(json.dumps(found, indent=1) if "--json" in words else "\n".join(lines(found)))
    if not found["gpu"]:
        print("spark-stack: nothing was shown: there is no GPU that torch can use", file=sys.stderr)
        return NOT_SEEN
    return 1 if any(row["verdict"] == "fail" for row in found["rows"]) else 0
