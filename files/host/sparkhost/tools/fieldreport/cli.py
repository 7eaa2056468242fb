"""The command `spark-field-report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.base.units import GIB, MIB, Mistake, parse_size
from sparkhost.sampler import nvml
from sparkhost.tools.fieldreport import host, trials
from sparkhost.tools.fieldreport.cuda import LIBRARY
from sparkhost.tools.fieldreport.report import document, markdown
from sparkhost.tools.profile.sample import Memory

PROGRAM = "spark-field-report"
SMALLEST, LARGEST = 64 * MIB, 8 * GIB
EPILOG = """\
None of sparkfleet was ever run on a GB10. This tries, on yours, what is only reported or inferred (docs/facts.md):
whether CUDA memory is charged to a cgroup, whether NVML lists it by process, how fast it comes and goes, how sshd is
started, and the like. It takes --size of GPU memory twice, in a process of its own, for some seconds, and only where
20 GiB beside it stay available. Nothing is changed. The report has no names of hosts and users, no addresses, keys or
serial numbers; read it before you paste it into an issue.

Exit code: 0, also where something is otherwise than known; 2 a mistake on the command line.

examples:
  spark-field-report
  spark-field-report --no-gpu --json"""


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Tries what is only reported of a Spark, in small sizes, and prints a report to paste.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", default="1G", help="GPU memory of a trial, 64M to 8G; default: %(default)s")
    parser.add_argument("--no-gpu", action="store_true", help="do not touch the GPU")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--cuda-library", default=LIBRARY, help=argparse.SUPPRESS)
    parser.add_argument("--nvml-library", default=nvml.LIBRARY, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        size = parse_size(options.size)
        if not SMALLEST <= size <= LARGEST:
            raise Mistake(f"got {options.size!r}, expected 64M to 8G")
    except Mistake as mistake:
        print(f"{PROGRAM}: --size: {mistake}", file=sys.stderr)
        return 2
    found = list(host.look())
    if not options.no_gpu:
        memory = Memory()
        found += trials.look(size, trials.Libraries(options.cuda_library, options.nvml_library), memory)
        memory.close()
    print(document(found) if options.json else markdown(found))
    return 0
