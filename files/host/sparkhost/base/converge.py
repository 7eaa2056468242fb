"""Plans and applies resources on this host: the one program behind every deploy.

Request (JSON): `{"action": "plan" | "apply" | "record", "modules": […], "measures": [{"name": …, "resources": […]},
…]}`. The modules are those that define the kinds of these resources; importing them registers the kinds. "apply" makes
the first measure so and then plans the rest: the answer carries the plan that the next step needs, which saves
a connection round trip. Answer: `{"applied": …, "plan": {measure: {"changes", "warnings", "refused", "error"}}}`,
and `"traceback"` where the error is a mistake of ours. Sizes that are a share of the host's memory come as words
(`sparkhost.base.shares`), and are settled here before any resource sees them.
With `"until_change"` a plan ends with the first measure that has something to do: when that is done, what comes after
has to be looked at anyway.

`"deploy"` says who changes the host and from what (ADR 11): an apply then takes the lock and notes the measure, and
"record" ends the deploy: it notes the whole and gives the lock back. Where another deploy has the lock, the answer is
`{"busy": LINE}` and nothing was changed. The answer to a plan has the `"history"` of the host.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from sparkhost.base import deploylock, history, shares
from sparkhost.base.pid1 import Look
from sparkhost.base.resource import (
    UPLOADS,
    Change,
    Context,
    Failed,
    Partly,
    Refused,
    Resource,
    Troubles,
    from_json,
    mistake,
    one_line,
    shown,
    trace,
)
from sparkhost.ssh import guard
from sparkhost.training_slice import slices


@dataclass
class Report:
    """What comes of one measure."""

    changes: list[Change] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    troubles: Troubles = field(default_factory=Troubles)

    def take(self, context: Context) -> None:
        self.warnings += context.warnings
        self.troubles.add(context.troubles)

    def blame(self, resource: Resource, error: Exception) -> bool:
        """Notes what a resource raised; whether the measure ends with it. A refusal leaves that resource alone."""
        self.troubles.note(error)
        return resource.is_basis or not isinstance(error, Refused)

    def told(self) -> dict[str, Any]:
        found = {
            "changes": [asdict(change) for change in self.changes],
            "warnings": self.warnings,
            "refused": self.troubles.refused,
            "error": "; ".join(self.troubles.failures) or None,
        }
        return found | ({"traceback": self.troubles.traceback} if self.troubles.traceback else {})


def plan_measure(resources: Sequence[Resource], context: Context) -> dict[str, Any]:
    """What a measure would change; refusals are part of the plan, and hide no other change (but for `is_basis`).

    Any exception costs this measure alone: one that nobody foresaw is told as a mistake of ours.
    """
    report = Report()
    for resource in resources:
        context.warnings, context.troubles = [], Troubles()
        try:
            found = shown(resource.steps(context))
        except Exception as error:
            report.take(context)
            if report.blame(resource, error):
                break
        else:
            report.take(context)
            report.changes += found
            context.pending += found
    return report.told()


def apply_measure(resources: Sequence[Resource]) -> dict[str, Any]:
    """Makes a measure so. A refusal leaves that resource alone and goes on; a failure, foreseen or not, ends this
    measure, as what follows may rest on it. Pieces of a resource that failed alone (`Partly`) end nothing.
    """
    report = Report()
    look = Look(units_of(resources))
    for resource in resources:
        try:
            apply_one(resource, look, report)
        except Exception as error:
            if report.blame(resource, error):
                break
    return report.told()


def apply_one(resource: Resource, look: Look, report: Report) -> None:
    """Makes one resource so, and looks whether it is. Raises what it raises."""
    with look:
        steps = [*resource.steps(context := Context())]
    if changes := shown(steps):
        look.forget()
        whole = True
        try:
            with resource.hold():
                resource.carry_out(steps, context.troubles)
        except Partly as partly:
            whole = False
            report.troubles.add(partly.troubles)
        with look:
            left = shown(resource.steps(context := Context()))
        report.changes += [change for change in changes if whole or change not in left]
        if left and whole:
            report.take(context)
            raise Failed(f"{left[0].what}: still differs after the change: {left[0].summary}")
    report.take(context)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Carries out one request; see the module's docstring."""
    for name in request["modules"]:
        importlib.import_module(name)
    measures = [
        (measure["name"], [from_json(resource) for resource in measure["resources"]])
        for measure in shares.settled(request["measures"], memory_in_all)
    ]
    UPLOADS.update(request.get("uploads", {}))
    deploy = request.get("deploy")
    answer: dict[str, Any] = {"applied": None}
    try:
        # The steps of a proof have no deploy of their own: they belong to one that has the lock.
        with deploylock.held(deploy, release=request["action"] == "record") if deploy else nullcontext():
            if request["action"] == "record":
                answer["notes"] = noted(history.close, deploy, request["results"])
            elif request["action"] == "apply":
                _, resources = measures.pop(0)
                answer["notes"] = guard_notes()
                answer["applied"] = apply_measure(resources)
                answer["unproved"] = guard.waits_for_proof()
                if deploy:
                    answer["notes"] += noted(history.note, deploy, request["measure"], answer["applied"])
            else:
                answer["history"] = history.brief()
    except deploylock.Busy as busy:
        return {"busy": one_line(busy)}
    answer["plan"] = planned(measures, until_change=request.get("until_change", False))
    return answer


def memory_in_all() -> int:
    """MemTotal of this host, bytes."""
    return slices.meminfo()["MemTotal"]


def planned(measures: Sequence[tuple[str, Sequence[Resource]]], *, until_change: bool) -> dict[str, Any]:
    """The plans of these measures, by name; with `until_change` those up to the first that has something to do."""
    context = Context()
    found: dict[str, Any] = {}
    with Look(unit for _, resources in measures for unit in units_of(resources)):
        for name, resources in measures:
            found[name] = plan_measure(resources, context)
            if until_change and found[name]["changes"]:
                break
    return found


def units_of(resources: Sequence[Resource]) -> list[str]:
    """Units to ask PID 1 for beforehand. A resource that cannot name its own says so when it is planned."""
    found: list[str] = []
    for resource in resources:
        with contextlib.suppress(Exception):
            found += resource.units()
    return found


def guard_notes() -> list[str]:
    """What a take-back reported meanwhile. That it cannot be read must not stop the apply that would mend it."""
    try:
        return guard.pop_report()
    except Exception as error:
        return [f"the report of the last take-back cannot be read: {mistake(error)}"]


def noted(write: Callable[..., None], *arguments: Any) -> list[str]:
    """Writes to the history. What goes wrong there is told, and undoes nothing."""
    try:
        write(*arguments)
    except OSError as error:
        return [f"the history of this host cannot be written: {one_line(error)}"]
    except Exception as error:
        return [f"the history of this host cannot be written: {mistake(error)}"]
    return []


def main(request: dict[str, Any]) -> int:
    """Prints the answer as one line of JSON. Exit code 1, and one line on stderr, where the request is bad."""
    os.umask(0o022)
    # A tool's message is parsed in places: it must not be translated.
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        answer = run(request)
    except (Failed, OSError) as failure:
        print(f"sparkhost: {one_line(failure)}", file=sys.stderr)
        return 1
    except Exception as error:
        print(trace(error), file=sys.stderr)
        print(f"sparkhost: {mistake(error)}", file=sys.stderr)  # a controller shows the last line
        return 1
    print(json.dumps(answer))
    return 0
