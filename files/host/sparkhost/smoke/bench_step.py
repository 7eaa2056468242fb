"""Five seconds on the GPU: `python bench_step.py`. Prints one line of JSON behind MARK. Run by the stack's Python.

A matrix times a vector, and a copy: both read memory as fast as it goes. They part where a GPU is in a slow state at
full clock (reported of Sparks: the product 3.3 times slower, copies as before), and fall together where memory or power
is short.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

MARK = "SPARK-BENCH "
SECONDS = 2.5
"""For each of the two."""
SIDE = 16384
"""Of the matrix, bf16: 512 MiB, more than any cache holds."""
AT_ONCE = 10
"""Calls between two looks at the clock."""


def measured(torch: Any, call: Callable[[], object], moved: int) -> dict[str, float]:
    """The median and the slowest rate in GB/s (10^9 bytes) of many short runs, by the GPU's own clock."""
    for _ in range(AT_ONCE):
        call()
    torch.cuda.synchronize()
    rates: list[float] = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(AT_ONCE):
            call()
        end.record()
        torch.cuda.synchronize()
        rates.append(AT_ONCE * moved / begin.elapsed_time(end) / 1e6)
    rates.sort()
    return {"median": round(rates[len(rates) // 2], 1), "slowest": round(rates[0], 1), "runs": len(rates)}


def bench(torch: Any) -> dict[str, Any]:
    matrix = torch.randn(SIDE, SIDE, dtype=torch.bfloat16, device="cuda")
    vector, out = (torch.randn(SIDE, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    target = torch.empty_like(matrix)
    size = matrix.numel() * matrix.element_size()
    return {
        "gemv": measured(torch, lambda: torch.mv(matrix, vector, out=out), size),
        "copy": measured(torch, lambda: target.copy_(matrix), 2 * size),
        "gpu": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
    }


def main() -> int:
    """Exit code 3 where torch finds no GPU; whatever else goes wrong is an exception of its own."""
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        print("torch finds no GPU that it can use", file=sys.stderr)
        return 3
    print(f"\n{MARK}{json.dumps(bench(torch))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
