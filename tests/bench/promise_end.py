"""A CUDA program that ignores its promise is ended, by name. `python tests/bench/promise_end.py`

On a machine with an NVIDIA GPU and cgroup v2, with systemd or without: real GPU memory by the real sampler
(NVML), real cgroups named like jobs, the daemon with `over_promise: end`. There is plenty of memory all the time, and
one that keeps its promise goes on beside it. Prints JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is run as a script, where nothing is installed

from tests.bench.brake import jobs_of
from tests.bench.guards import GIB, HOST, Limits, ended, meminfo, watchdog

HOG = Path(__file__).with_name("cuda_hog.py")
PROMISE = 8
LONGEST = 30.0


def main() -> int:
    """Exit code 0 where the one over its promise was ended, and the one that keeps it lives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("/sys/fs/cgroup"), help="cgroup v2; default: %(default)s")
    root = parser.parse_args().root
    more = 'over_promise = "end"\n'
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sparkfleet-bench-")))
        environment = {**os.environ, "PYTHONPATH": str(HOST)}
        sampler = [sys.executable, "-m", "sparkhost.sampler", "--file", str(folder / "gpu.json"), "--every", "0.5"]
        stack.enter_context(ended(subprocess.Popen(sampler, env=environment)))
        jobs = stack.enter_context(jobs_of(root, ["keeps", "breaks"]))
        for job in jobs.values():
            (job.path / "memory.max").write_text(str(PROMISE * GIB))
        stack.enter_context(watchdog(Limits(GIB, GIB // 2), folder, gpu="always", cgroup_root=root, more=more))
        jobs["keeps"].run(sys.executable, str(HOG), str(PROMISE - 2))
        time.sleep(8)
        began = time.monotonic()
        jobs["breaks"].run(sys.executable, str(HOG), str(PROMISE + 8))
        while not jobs["breaks"].has_ended and time.monotonic() - began < LONGEST:
            time.sleep(0.05)
        took = round(time.monotonic() - began, 2)
        time.sleep(2)
        kept, broke = jobs["keeps"].lives, jobs["breaks"].has_ended
        records = [json.loads(path.read_text()) for path in sorted((folder / "state" / "events").glob("*.json"))]
        told = [
            {key: record["victim"][key] for key in ("name", "gpu", "promise")} | {"reason": record.get("reason")}
            for record in records
            if record["victim"]
        ]
    result = {"over_promise_ended": broke, "seconds_from_start": took, "the_other_lives": kept, "told": told}
    print(json.dumps({**result, "available_gib": round(meminfo() / GIB, 1)}, indent=2))
    return 0 if kept and broke else 1


if __name__ == "__main__":
    sys.exit(main())
