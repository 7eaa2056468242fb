"""The process that takes GPU memory: told what to do line by line, and killed in the end.

On standard input `device BYTES`, `managed BYTES` or `info`; on standard output a line of JSON for each. Whatever blocks
in the driver blocks here, and not in who asks.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from sparkhost.tools.fieldreport.cuda import LIBRARY, Cuda, CudaError


def answer(cuda: Cuda, line: str) -> dict[str, float]:
    """Does what a line says. Times in seconds, sizes in bytes."""
    word, _, size = line.strip().partition(" ")
    if word == "info":
        free, total = cuda.info()
        return {"free": free, "total": total}
    begun = time.monotonic()
    cuda.allocate(int(size), managed=word == "managed")
    return {"seconds": time.monotonic() - begun}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", default=LIBRARY)
    options = parser.parse_args()
    try:
        cuda = Cuda(options.library)
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(cuda, line)), flush=True)
    except CudaError as problem:
        print(json.dumps({"problem": str(problem)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
