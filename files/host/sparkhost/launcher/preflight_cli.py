"""`spark-preflight`: the look at the memory that `spark-run` makes before a job, by itself; between runs, say."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.base.units import MIB, Mistake, parse_size, show_size
from sparkhost.launcher import config as configuration
from sparkhost.launcher import gpu, preflight
from sparkhost.launcher.client import Trouble, ask
from sparkhost.launcher.config import BadConfig
from sparkhost.launcher.holders import holders, meminfo, table
from sparkhost.launcher.request import DropCache

SHORT, MISTAKE = 1, 2
EPILOG = """\
Exit code: 0 the memory is there, 1 it is not, 2 a mistake, in one line

examples:
  spark-preflight                              is there what a job usually needs, and who holds the rest?
  spark-preflight --need 60G --drop-cache      make room for the next run first
  spark-preflight --need 60G && python3 ...    only where there is room"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="spark-preflight",
        description="Is there the memory that the next run needs, who holds it if not, and what of it is page cache?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--need", metavar="SIZE", help="such as 60G (G is 2^30 bytes); default: the host's setting")
    made.add_argument(
        "--drop-cache", action="store_true", help="give back clean page cache first (once a minute for all)"
    )
    made.add_argument("--json", action="store_true", help="one JSON object; sizes in bytes")
    return made


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """spark-preflight; the exit code."""
    options = parser().parse_args(arguments)
    try:
        need = parse_size(options.need) if options.need else configuration.read().need
        if options.drop_cache:
            ask(DropCache())
    except Mistake as mistake:
        print(f"spark-preflight: --need: {mistake}", file=sys.stderr)
        return MISTAKE
    except (BadConfig, Trouble) as problem:
        print(f"spark-preflight: {problem}", file=sys.stderr)
        return MISTAKE
    memory = meminfo()
    samples = gpu.by_process()
    found = holders(samples=samples)
    finding = preflight.judge(need, memory, lambda: found)
    if options.json:
        told = {
            "version": 1,
            "need": need,
            "available": memory.get("MemAvailable", 0),
            "free": memory.get("MemFree", 0),
            "total": memory.get("MemTotal", 0),
            "short": finding.short,
            "page_cache_in_the_way": finding.cached,
            "gpu_memory_known": samples is not None,
            "holders": [holder._asdict() for holder in found],
        }
        print(json.dumps(told, indent=2))
        return SHORT if finding.short else 0
    if finding.short or finding.cached:
        print(finding.lines[0])
    else:
        print(f"{show_size(need)} are there: {show_size(memory.get('MemAvailable', 0))} available")
    if finding.cached:
        print("CUDA gets at it with: spark-preflight --drop-cache")
    for line in table(found, 16 * MIB):
        print(line)
    return SHORT if finding.short else 0
