"""Prints the scoreboard: `nice python -m tests.bench.choice [--lot N] [--verbose] [IDS…]`."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "files" / "host"))

from tests.bench.choice.lot import drawn
from tests.bench.choice.rules import RULES
from tests.bench.choice.run import Result, run, scenarios


def row(rule: str, results: list[Result]) -> str:
    """A line of the table."""
    right = sum(result.is_right for result in results)
    judged = [result for result in results if result.scenario.may]
    first = sum(bool(result.ended) and result.ended[0] in result.scenario.may for result in judged)
    lows = sorted(result.lowest for result in judged)
    wrong = " ".join(result.scenario.id for result in results if not result.is_right)
    return (
        f"| {rule} | {right} of {len(results)} | {100 * first / len(judged):.0f} % "
        f"| {sum(result.innocents for result in results)} | {lows[0]:.2f}, {lows[len(lows) // 10]:.2f}, "
        f"{statistics.median(lows):.2f} | {sum(result.freezes for result in results)}, "
        f"{sum(result.paused for result in results):.0f}, {max(result.longest for result in results):.1f} "
        f"| {wrong if len(wrong) < 120 else '…'} |"
    )


HEAD = """| rule | right | first victim | innocents ended | lowest / term_below: worst, tenth, median \
| freezes, unit-seconds, longest | wrong in |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--lot", type=int, default=0, help="so many scenarios drawn by lot instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rule", choices=list(RULES), action="append")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    chosen = drawn(options.lot, options.seed) if options.lot else list(scenarios())
    chosen = [one for one in chosen if not options.ids or one.id in options.ids]
    print(HEAD)
    for rule in options.rule or RULES:
        began = time.monotonic()
        results = [run(scenario, rule) for scenario in chosen]
        print(row(rule, results), f"<!-- {time.monotonic() - began:.0f} s -->", flush=True)
        if options.verbose:
            for result in results:
                verdict = "right" if result.is_right else "WRONG"
                print(
                    f"  {result.scenario.id} {verdict} ended {result.ended[:6]} ({len(result.ended)}) "
                    f"lowest {result.lowest:.2f} freezes {result.freezes} longest {result.longest:.1f} "
                    f"{'LOST ' if result.lost else ''}{result.scenario.what}"
                )


if __name__ == "__main__":
    main()
