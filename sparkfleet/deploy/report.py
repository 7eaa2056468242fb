"""What a run of `deploy` or `drift` prints at its end: every host once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sparkfleet.deploy.outcome import CODES, Outcome, State
from sparkfleet.exit_codes import ExitCode


def as_json(found: Sequence[Outcome], code: ExitCode) -> str:
    """The run as JSON: `schema`, `exit_code`, and `hosts`, each with `state`, `reason`, `measures` and `applied`."""
    hosts: dict[str, Any] = {
        one.host: {
            "state": one.state,
            "reason": one.reason,
            "measures": {
                name: {"changes": measure.changes, "problems": measure.problems, "cause": measure.cause}
                for name, measure in one.measures.items()
            },
            "applied": one.applied,
        }
        for one in found
    }
    return json.dumps({"schema": 1, "exit_code": int(code), "hosts": hosts}, indent=2)


def details(one: Outcome, *, diff: bool) -> list[str]:
    """The lines about one host of a dry run: each change, with its diff, and each problem."""
    lines = []
    for name, measure in one.measures.items():
        if measure.history:
            lines.append(f"{name}: {measure.history}")
        for change in measure.changes:
            lines.append(f"{name}: {change['what']}: would {change['summary']}")
            if diff:
                lines += [f"    {line}" for line in change["diff"].splitlines()]
        lines += [f"{name}: {line}" for line in measure.problems]
    return lines


def summary(found: Sequence[Outcome]) -> list[str]:
    """One line a host, the bad ones last, where a reader looks."""
    width = max((len(one.host) for one in found), default=0)
    lines = []
    for one in sorted(found, key=lambda one: (CODES[one.state], one.state)):
        count = one.changes()
        what = f"{count} change{'' if count == 1 else 's'}" if one.state in (State.CHANGED, State.DRIFT) else ""
        said = what or one.reason
        lines.append(f"{one.host:<{width}}  {one.state}{f': {said}' if said else ''}")
    return lines
