"""Plans and applies resources on this host: the one program behind every deploy.

Request (JSON): `{"action": "plan" | "apply" | "record", "modules": […], "measures": [{"name": …, "resources": […]},
…]}`. The modules are those that define the kinds of these resources; importing them registers the kinds. "apply" makes
the first measure so and then plans the rest: the answer carries the plan that the next step needs, which saves
a connection round trip. Answer: `{"applied": …, "plan": {measure: {"changes", "warnings", "refused", "error"}}}`.
With `"until_change"` a plan ends with the first measure that has something to do: when that is done, what comes after
has to be looked at anyway.

`"deploy"` says who changes the host and from what (ADR 11): an apply then takes the lock and notes the measure, and
"record" ends the deploy: it notes the whole and gives the lock back. Where another deploy has the lock, the answer is
`{"busy": LINE}` and nothing was changed. The answer to a plan has the `"history"` of the host.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from sparkhost import deploylock, guard, history
from sparkhost.pid1 import Look
from sparkhost.resource import UPLOADS, Change, Context, Failed, Refused, Resource, from_json


def one_line(error: BaseException) -> str:
    """The error as one line for a person; a full disk or a read-only file system is named as such."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ({error.filename})" if error.filename else ""
        remedy = {
            errno.ENOSPC: "; free some space there and deploy again",
            errno.EROFS: "; the file system is read-only: see the kernel log for why",
        }.get(error.errno, "")
        return f"{os.strerror(error.errno)}{where}{remedy}"
    return " ".join(str(error).split()) or type(error).__name__


def plan_measure(resources: Sequence[Resource], context: Context) -> dict[str, Any]:
    """What a measure would change; refusals are part of the plan, and hide no other change (but for `is_basis`)."""
    changes: list[Change] = []
    refused: list[str] = []
    error: str | None = None
    context.warnings = []
    for resource in resources:
        try:
            found = resource.plan(context)
        except Refused as refusal:
            refused.append(one_line(refusal))
            if resource.is_basis:
                break
        except (Failed, OSError) as failure:
            error = one_line(failure)
            break
        else:
            changes += found
            context.pending += found
    return {
        "changes": [asdict(change) for change in changes],
        "warnings": context.warnings,
        "refused": refused,
        "error": error,
    }


def apply_measure(resources: Sequence[Resource]) -> dict[str, Any]:
    """Makes a measure so. A refusal leaves that resource alone and goes on; a failure ends this measure."""
    done: list[Change] = []
    refused: list[str] = []
    error: str | None = None
    warnings: list[str] = []
    look = Look(units_of(resources))
    for resource in resources:
        try:
            with look:
                changes = resource.plan(context := Context())
            if changes:
                look.forget()
                resource.apply()
                done += changes
                with look:
                    left = resource.plan(context := Context())
                if left:
                    raise Failed(f"{left[0].what}: still differs after the change: {left[0].summary}")
            warnings += context.warnings
        except Refused as refusal:
            refused.append(one_line(refusal))
            if resource.is_basis:
                break
        except (Failed, OSError) as failure:
            error = one_line(failure)
            break
    return {
        "changes": [asdict(change) for change in done],
        "warnings": warnings,
        "refused": refused,
        "error": error,
    }


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Carries out one request; see the module's docstring."""
    for name in request["modules"]:
        importlib.import_module(name)
    measures = [
        (measure["name"], [from_json(resource) for resource in measure["resources"]]) for measure in request["measures"]
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
                answer["notes"] = guard.pop_report()
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
    return [unit for resource in resources for unit in resource.units()]


def noted(write: Callable[..., None], *arguments: Any) -> list[str]:
    """Writes to the history. What goes wrong there is told, and undoes nothing."""
    try:
        write(*arguments)
    except OSError as error:
        return [f"the history of this host cannot be written: {one_line(error)}"]
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
    print(json.dumps(answer))
    return 0
