"""A run as metrics, for the textfile collector of Prometheus' node exporter: what fails, on which host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from sparkfleet.audit.model import Control, Run, Status
from sparkfleet.audit.report import order
from sparkfleet.audit.text import cut, visible

RED = (Status.FAIL, Status.ERROR, Status.UNREACHABLE)
MOST_IN_LABEL = 200
HELP = {
    "sparkfleet_audit_started_seconds": "When the last audit began, in seconds since the epoch",
    "sparkfleet_audit_verdicts": "Verdicts of the last audit",
    "sparkfleet_audit_red": "Controls that fail, or could not be seen; absent once they pass",
}


def dumps(run: Run, controls: Sequence[Control]) -> str:
    """The text (exposition format 0.0.4). A control about the whole fleet has the host "fleet"."""
    known = order.cards(run, controls)
    counts = Counter((v.host or "fleet", str(known[v.control].severity), str(v.status)) for v in run.verdicts)
    red = sorted(
        (v.host or "fleet", v.control, str(known[v.control].severity), str(v.status))
        for v in run.verdicts
        if v.status in RED
    )
    values: dict[str, list[str]] = {
        "sparkfleet_audit_started_seconds": [f" {datetime.fromisoformat(run.started).timestamp():.0f}"],
        "sparkfleet_audit_verdicts": [
            f"{labels(host=host, severity=severity, status=status)} {count}"
            for (host, severity, status), count in sorted(counts.items())
        ],
        "sparkfleet_audit_red": [
            f"{labels(host=host, control=control, severity=severity, status=status)} 1"
            for host, control, severity, status in red
        ],
    }
    return "".join(_family(name, rows) for name, rows in values.items())


def labels(**values: str) -> str:
    """Label names and escaped values, as the format has them."""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items()) + "}"


def _escaped(value: str) -> str:
    return cut(visible(value), MOST_IN_LABEL)[0].replace("\\", "\\\\").replace('"', '\\"')


def _family(name: str, rows: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in _lines(name, rows))


def _lines(name: str, rows: Sequence[str]) -> Iterator[str]:
    yield f"# HELP {name} {HELP[name]}"
    yield f"# TYPE {name} gauge"
    for row in rows:
        yield f"{name}{row}"
