"""What the journal says of how earlier boots ended: with a shutdown, or without a word."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

DAYS = 7
# Catalogued messages (systemd, sd-messages.h): journald has started; a unit has been started.
JOURNAL_STARTED, UNIT_STARTED = "f77379a8490b408bbe5f6940505a777b", "39f53479d3a045ac8e11786248231fbf"
MOST = 400


def ends(parameters: Parameters) -> Mapping[str, Seen]:
    """The ends of the last days, the latest last: when the host was started again, and whether it was shut down."""
    begun = (f"MESSAGE_ID={JOURNAL_STARTED}",)
    shut = ("_PID=1", f"MESSAGE_ID={UNIT_STARTED}", "UNIT=shutdown.target")
    options = ("-q", "--no-pager", "-o", "json", "--output-fields=MESSAGE_ID", "--since=-60d", f"-n{MOST}")
    # journalctl reads the journal in memory too, which has no earlier boot; without one on disk nothing can be said.
    folder = Path("/var/log/journal") / read("/etc/machine-id").output.strip()
    shown = run(("journalctl", *options, *begun, "+", *shut), limit=1 << 19)
    command = f"journalctl --list-boots; journalctl {' '.join(begun)} + {' '.join(shut)}"
    if shown.rc or not folder.is_dir():
        output = shown.output if shown.rc else "no journal on disk\n"
        return {"boot_ends": shown._replace(command=command, output=output)}
    lines = told(shown.output, time.time())
    text = "\n".join([f"{len(lines)} ends in {DAYS} days", *lines, ""])
    return {"boot_ends": shown._replace(command=command, output=text)}


def told(journal: str, now: float) -> list[str]:
    """Each end of the last days: when the host was started again, and `shut` or `cut`."""
    starts: dict[str, float] = {}
    were_shut = set()
    for line in journal.splitlines():
        entry = json.loads(line)
        if entry["MESSAGE_ID"] == JOURNAL_STARTED:
            starts.setdefault(entry["_BOOT_ID"], int(entry["__REALTIME_TIMESTAMP"]) / 1e6)
        else:
            were_shut.add(entry["_BOOT_ID"])
    return [
        f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(starts[after]))} {'shut' if boot in were_shut else 'cut'}"
        for boot, after in pairwise(starts)
        if now - starts[after] <= DAYS * 86400
    ]


LOOKS: dict[str, Looks] = {"boot_ends": ends}
