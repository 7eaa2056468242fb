"""A PyTorch program over its promise on a real GPU: it gets torch.OutOfMemoryError, and lives on. Prints JSON.

    python tests/bench/promise_gpu.py [--gib 8]         (a machine with an NVIDIA GPU and torch >= 2.10; no systemd)

The variables are those that the launcher's own code computes for a promise of so many GiB; the total is the device's,
which on a Spark is MemTotal. Each case is a process of its own that takes blocks of 64 MiB without end and, once it is
refused, frees them and multiplies two matrices. `bare` has no variables and stops by itself at twice the promise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HOST = Path(__file__).resolve().parents[2] / "files" / "host"
PROGRAM = """
import json, sys, torch
limit = int(sys.argv[1])
total = torch.cuda.get_device_properties(0).total_memory
held, error = [], ""
try:
    while sum(block.numel() for block in held) < limit:
        held.append(torch.ones(64 << 20, dtype=torch.uint8, device="cuda"))
except torch.OutOfMemoryError as raised:
    error = str(raised).split(".")[0]
taken = torch.cuda.memory_reserved(0)
held.clear()
torch.cuda.empty_cache()
one = torch.eye(512, device="cuda")
right = bool(torch.equal(one @ one, one))
print(json.dumps({"total": total, "taken": taken, "error": error, "lives_on": right, "torch": torch.__version__}))
"""


def device_total() -> int:
    """Bytes of the first GPU, as PyTorch has it."""
    code = "import torch; print(torch.cuda.get_device_properties(0).total_memory)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def run(variables: dict[str, str], limit: int) -> dict[str, object]:
    """One program with these variables. `limit`: bytes after which it stops by itself."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTORCH_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(limit)],
        env={**plain, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        return {"exit": done.returncode, "stderr": done.stderr[-1000:]}
    return {"exit": 0, **json.loads(done.stdout.splitlines()[-1]), "warnings": done.stderr[-500:]}


def main() -> int:
    """Runs the cases; exit code 0 where every promise held and every program lived on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=8, help="the promise, in GiB")
    promised = parser.parse_args().gib << 30
    sys.path.insert(0, str(HOST))
    from sparkhost.launcher.promise import TORCH_ALLOCATOR, Host, variables

    host = Host(total=device_total(), unified=True, cores=os.cpu_count() or 1)
    release = {"torch": (2, 11)}
    found, notes = variables(promised, host, release, {})
    without_segments, _ = variables(promised, host, {**release, "vllm": (0, 1)}, {})
    cases = {
        "both names": found,
        **{f"{name} alone": {name: found[name]} for name in TORCH_ALLOCATOR},
        "no segments": without_segments,
    }
    results = {name: run(chosen, 2 * promised) for name, chosen in cases.items()}
    held = all(
        result.get("error", "").startswith("CUDA out of memory")  # type: ignore[attr-defined]
        and result["lives_on"] is True
        and 0 < int(str(result["taken"])) <= promised
        for result in results.values()
    )
    bare = run({}, 2 * promised)
    print(json.dumps({"promise": promised, "variables": found, "notes": notes, "held": held, "cases": results,
                      "bare": bare}, indent=2))  # fmt: skip
    return 0 if held and not bare.get("error") else 1


if __name__ == "__main__":
    sys.exit(main())
