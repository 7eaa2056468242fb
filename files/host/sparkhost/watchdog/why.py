"""`spark-why`: what the watchdog last did to one's work, and how the host's last boot ended, in plain words."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.observer import told
from sparkhost.watchdog.alive import STATE as ALIVE
from sparkhost.watchdog.alive import absence
from sparkhost.watchdog.postmortem import readable
from sparkhost.watchdog.report import explain

STATE = Path("/var/lib/sparkfleet/watchdog")
MORE = """\
Root sees what happened to everybody. What the figures mean, and what to do: docs/watchdog.md.
Exit code: 0, also where nothing has happened; 2 a mistake on the command line.

examples:
  spark-why
  spark-why -n 5 --json
  sudo spark-why --last-boot    why the host itself went down
"""


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, also where nothing has happened."""
    parser = argparse.ArgumentParser(
        prog="spark-why",
        description="Explains the last time the memory watchdog ended work of yours.",
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", "--number", type=int, default=1, help="how many events, the latest first (default: 1)")
    parser.add_argument("--json", action="store_true", help="the post-mortems themselves, a line each")
    parser.add_argument(
        "--last-boot", action="store_true", help="how the boot before this one ended, and why; root sees all of it"
    )
    parser.add_argument("--state-dir", type=Path, default=STATE, help=argparse.SUPPRESS)
    parser.add_argument("--alive", type=Path, default=ALIVE, help=argparse.SUPPRESS)
    parser.add_argument("--observed", default=told.PATH, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.last_boot:
        return last_boot(options.json)
    ends = (record for record in readable(options.state_dir) if options.json or record.get("event") in ("term", "kill"))
    shown = list(islice(ends, max(options.number, 0)))
    if not shown and not options.json:
        print("spark-why: the memory watchdog has ended nothing of yours on this host")
    for record in shown:
        print(json.dumps(record) if options.json else "\n".join(explain(record)))
    if not options.json:
        for line in filter(None, (absence(options.alive), *told.warnings(options.observed))):
            print(f"spark-why: {line}")
    return 0


def last_boot(as_json: bool) -> int:
    """Exit code 0, also where nobody can say: unsure is an answer."""
    # Read only where it is asked for: a login runs this program.
    from sparkhost.watchdog.last_boot import gather, words

    traces = gather.Gathering().traces()
    print(json.dumps(words.document(traces)) if as_json else "\n".join(words.show(traces)))
    return 0
