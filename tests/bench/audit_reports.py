"""What the audit's reports cost: `python -m tests.bench.audit_reports`. CPU seconds for 200 hosts x 60 verdicts.

Waivers are applied, the run is written in every format, kept, read again and compared with another. Each figure is the
best of a few rounds: what disturbs a measurement only adds to it.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sparkfleet.audit.diff import diff
from sparkfleet.audit.model import Status
from sparkfleet.audit.report import diff_text, grid, html, json_file, junit
from sparkfleet.audit.store import Store
from sparkfleet.audit.waivers import Waiver, apply
from tests.unit.audit_runs import large

ROUNDS = 3
TARGET = 1.0
"""CPU seconds for waivers and all reports together."""


def best(what: Callable[[], object]) -> float:
    """CPU seconds of the fastest round."""
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        what()
        taken.append(time.process_time() - started)
    return min(taken)


def main() -> int:
    """Prints the table. Returns 1 where the target is missed."""
    run, controls = large()
    rows = tuple(
        Waiver(c.id, "spark*", "why", "ops", date(2027, 3, 31), f"w.yaml:{at}") for at, c in enumerate(controls[::6])
    )
    worse = replace(
        run,
        id="20261125T121500Z-3f9c",
        verdicts=tuple(
            replace(v, status=Status.FAIL, saw="other") if at % 20 == 0 else v for at, v in enumerate(run.verdicts)
        ),
    )
    written = json_file.dumps(run, controls)

    def printed() -> None:
        Console(file=io.StringIO(), width=100, force_terminal=True).print(grid.render(run, controls))

    figures = {
        "waivers": best(lambda: apply(run.verdicts, rows, date(2026, 11, 24))),
        "terminal": best(printed),
        "JSON": best(lambda: json_file.dumps(run, controls)),
        "JUnit": best(lambda: junit.dumps(run, controls)),
        "HTML": best(lambda: html.dumps(run, controls)),
    }
    total = sum(figures.values())
    with tempfile.TemporaryDirectory() as folder:
        beside = {
            "all of these": total,
            "JSON, read": best(lambda: json_file.loads(written)),
            "kept in the store": min(best_append(Path(folder), at) for at in range(ROUNDS)),
            "compared, as JSON": best(lambda: diff_text.dumps(diff(run, worse, controls))),
        }
    table = Table("what", "CPU, s", title=f"{len(run.hosts)} hosts x {len(controls)} controls")
    for name, seconds in (figures | beside).items():
        table.add_row(name, f"{seconds:.3f}")
    console = Console()
    console.print(table)
    sizes = {"JSON": len(written), "HTML": len(html.dumps(run, controls)), "JUnit": len(junit.dumps(run, controls))}
    console.print(", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items()))
    if total > TARGET:
        console.print(f"missed: expected at most {TARGET} s")
    return int(total > TARGET)


def best_append(folder: Path, at: int) -> float:
    """CPU seconds of one append to a store of its own."""
    run, controls = large()
    store = Store(folder / str(at))
    started = time.process_time()
    store.append(run, controls)
    return time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
