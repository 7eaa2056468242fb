"""The one pyinfra operation behind every measure: plan on the host, show, apply, plan the rest.

Why not a pyinfra operation per file: ADR 2. In short: standard operations cost 1 to 3 SSH commands each in each
of pyinfra's two phases, are not atomic, and cannot say "refused" without ending the run for that host.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any, cast
from weakref import WeakKeyDictionary

import click
from paramiko import SSHException
from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State, StateStage
from pyinfra.context import ctx_host, state

from sparkfleet.settings import HostSettings
from sparkhost.resource import Need, Resource, from_json
from sparkhost.systemd import UNIT_DIRECTORY, DaemonReload
from tasks.lib import journal, proof, remote, wheels

# Seconds. A plan only looks; a change may have to read swapped pages back, or unpack a large archive.
PLAN_TIMEOUT = 120
APPLY_TIMEOUT = 1800
# What of a measure comes after systemd has read its units again; its lines are told as those of the measure.
AFTER_RELOAD = " after daemon-reload"


@dataclass
class Run:
    """What a deploy knows about one host while it runs."""

    measures: list[dict[str, Any]] = field(default_factory=list)
    """All measures in order, as requests."""
    plan: dict[str, Any] = field(default_factory=dict)
    """The plan in force, by measure."""
    stage: StateStage | None = None
    """The stage in which the plan was made: each of pyinfra's two phases looks for itself."""
    trouble: list[str] = field(default_factory=list)
    """One line for each refusal or failure of a measure."""
    warned: set[str] = field(default_factory=set)
    """Warnings that have been shown: a plan is made more than once."""


RUNS: WeakKeyDictionary[Host, Run] = WeakKeyDictionary()


def current_host() -> Host:
    """The host that pyinfra is preparing or changing now; not the proxy, which differs by greenlet."""
    return cast(Host, ctx_host.get())  # type: ignore[no-untyped-call]


def deploy(*measures: ModuleType) -> None:
    """Converges the current host to the measures, in this order; each is a module of `tasks/`.

    Settings come from the fleet file, or are the defaults (`pyinfra @local deploy.py`). A measure that is refused
    or fails does not stop the others: the last operation reports it, and fails the host.
    """
    this_host = current_host()
    settings = HostSettings.model_validate(this_host.data.get("settings") or {})
    run = RUNS.setdefault(this_host, Run())
    resources: list[Resource] = []
    late: list[dict[str, Any]] = []
    for measure in measures:
        name = measure.__name__.rpartition(".")[2]
        wanted = wanted_of(measure, getattr(settings, name))
        run.measures.append(as_request(name, [r for r in wanted if not r.after_reload]))
        if after := [r for r in wanted if r.after_reload]:
            late.append(as_request(f"{name}{AFTER_RELOAD}", after))
        resources += wanted
    units = sorted(p for r in resources if (p := getattr(r, "path", "")).startswith(f"{UNIT_DIRECTORY}/"))
    run.measures += [as_request("systemd", [DaemonReload(units)] if units else []), *late]
    for entry in run.measures:
        converge(name=entry["name"], measure=entry["name"])
    finish(name="finish")


def wanted_of(measure: ModuleType, settings: Any) -> Sequence[Resource]:
    """The resources of a measure in the state that its settings ask for; none where it is unmanaged."""
    if settings.state == "unmanaged":
        return ()
    wanted: Sequence[Resource] = (measure.apply if settings.state == "present" else measure.remove)(settings)
    return wanted


def as_request(name: str, resources: Sequence[Resource]) -> dict[str, Any]:
    return {"name": name, "resources": [resource.to_json() for resource in resources]}


@operation()
def converge(measure: str) -> Generator[PyinfraCommand, None, None]:
    """Brings one measure of the current host to its wanted state; no command where it is there already."""
    this_host = current_host()
    run = RUNS[this_host]
    if run.stage != state.current_stage:
        run.stage, run.plan = state.current_stage, {}
        names = [entry["name"] for entry in run.measures]
        answer = ask(this_host, measure, remote.request("plan", run.measures[names.index(measure) :]), PLAN_TIMEOUT)
        if answer is None:
            # A host fails by a failing command: an exception here would end the run for all of them.
            if state.is_executing:
                yield FunctionCommand(fail, [], {})
            else:
                state.fail_hosts({this_host})  # type: ignore[no-untyped-call]
            return
        run.plan = answer["plan"]
    plan = run.plan.get(measure, {"changes": [], "warnings": [], "refused": [], "error": None})
    warn(this_host, run, measure, plan)
    if not state.is_executing:
        show(this_host, measure, plan, "would ")
    elif not plan["changes"]:
        report(this_host, run, measure, plan)
    if plan["changes"]:
        yield FunctionCommand(apply, [measure], {})


def ask(host: Host, measure: str, request: str, timeout: int) -> dict[str, Any] | None:
    """Sends a request to sparkhost on a host; its answer, or None where there is none, which has been logged."""
    lost = False
    try:
        ok, output = host.run_shell_command(
            StringCommand(remote.COMMAND), _sudo=host.state.config.SUDO, _stdin=request, _timeout=timeout
        )
        if ok and output.stdout_lines:
            return cast(dict[str, Any], json.loads(output.stdout_lines[-1]))
        problem = (output.stderr_lines or ["no answer"])[-1]
    except json.JSONDecodeError as error:
        problem = f"the answer is not JSON: {error}"
    except (OSError, EOFError, SSHException) as error:
        lost, problem = True, f"lost the host: {error or type(error).__name__}"
    give_up(host, measure, problem, lost=lost)
    return None


def give_up(host: Host, measure: str, problem: str, *, lost: bool) -> None:
    """Says why no more is done on a host in this run."""
    measure = shown(measure)
    logger.error(f"{host.print_prefix}{measure}: {problem}")
    journal.note(host.name, "lost" if lost else "trouble", measure=measure, problem=problem)


def apply(state: State, host: Host, measure: str) -> bool:
    """Applies one measure on a host and takes over the plan for the rest that comes back with the answer."""
    run = RUNS[host]
    names = [entry["name"] for entry in run.measures]
    uploads: dict[str, str] = {}
    try:
        if needed := {need.sha256: wheels.fetch(need) for need in needs(run, measure)}:
            uploads = wheels.deliver(
                host, needed, lambda line: logger.info(f"{host.print_prefix}{shown(measure)}: {line}")
            )
        answer = ask(
            host, measure, remote.request("apply", run.measures[names.index(measure) :], uploads), APPLY_TIMEOUT
        )
        if uploads:
            wheels.take_away(host, uploads.values())
    except wheels.NoWheel as error:
        report(host, run, measure, {"changes": [], "refused": [], "error": str(error)})
        return True  # this measure only: `finish` fails the host, the others go on
    except (OSError, EOFError, SSHException) as error:
        give_up(host, measure, f"lost the host: {error or type(error).__name__}", lost=True)
        return False
    if answer is None:
        return False
    run.plan = answer["plan"]
    for note in answer["notes"]:
        logger.warning(f"{host.print_prefix}{measure}: {note}")
    warn(host, run, measure, answer["applied"])
    show(host, measure, answer["applied"], "")
    report(host, run, measure, answer["applied"])
    if answer["unproved"]:
        prove_guarded(state, host, run, measure)
    return True


def needs(run: Run, measure: str) -> list[Need]:
    """The wheels that the plan of a measure asks for.

    Raises:
        NoWheel: one that the measure's settings do not name. A host must not choose what the controller downloads.
    """
    (entry,) = (entry for entry in run.measures if entry["name"] == measure)
    named = {json.dumps(asdict(need)): need for r in entry["resources"] for need in from_json(r).may_need()}
    asked = [json.dumps(need) for change in run.plan[measure]["changes"] for need in change["needs"]]
    if not named.keys() >= set(asked):
        raise wheels.NoWheel("the host asks for a wheel that its settings do not name: is it what it claims to be?")
    return [named[need] for need in dict.fromkeys(asked)]


def prove_guarded(state: State, host: Host, run: Run, measure: str) -> None:
    """Proves a guarded change; what went wrong is for `finish`."""
    (entry,) = (entry for entry in run.measures if entry["name"] == measure)
    for resource in entry["resources"]:
        if resource["kind"] == "guarded":
            for line in proof.prove(state, host, resource):
                run.trouble.append(f"{measure}: {line}")
                logger.error(f"{host.print_prefix}{measure}: {line}")
                journal.note(host.name, "trouble", measure=measure, problem=line)


def shown(measure: str) -> str:
    """The name that people know a measure by."""
    return measure.removesuffix(AFTER_RELOAD)


def show(host: Host, measure: str, plan: dict[str, Any], verb: str) -> None:
    """One line for each change, with its diff under --diff; warnings for what is refused."""
    measure = shown(measure)
    if verb:
        told(host, "plan", measure, plan)
    for change in plan["changes"]:
        logger.info(f"{host.print_prefix}{measure}: {change['what']}: {verb}{change['summary']}")
        if change["diff"] and state.config.DIFF:
            for line in change["diff"].splitlines():
                colour = {"+": "green", "-": "red"}.get(line[:1])
                logger.info(f"{host.print_prefix}    {click.style(line, colour)}")
    if verb:
        for line in [*plan["refused"], *([plan["error"]] if plan["error"] else [])]:
            logger.warning(f"{host.print_prefix}{measure}: {line}")


def warn(host: Host, run: Run, measure: str, result: dict[str, Any]) -> None:
    """Shows what a person should know about a host, once; it fails nothing."""
    measure = measure.removesuffix(AFTER_RELOAD)
    for line in result["warnings"]:
        if line not in run.warned:
            run.warned.add(line)
            logger.warning(f"{host.print_prefix}{measure}: {line}")


def report(host: Host, run: Run, measure: str, result: dict[str, Any]) -> None:
    """Notes what a measure did and could not do, for `finish` and the journal."""
    measure = shown(measure)
    told(host, "applied", measure, result)
    for line in [*result["refused"], *([result["error"]] if result["error"] else [])]:
        run.trouble.append(f"{measure}: {line}")
        logger.error(f"{host.print_prefix}{measure}: {line}")


def told(host: Host, event: str, measure: str, result: dict[str, Any]) -> None:
    changes = [{key: change[key] for key in ("what", "summary", "diff")} for change in result["changes"]]
    journal.note(host.name, event, measure=measure, changes=changes, refused=result["refused"], error=result["error"])


@operation()
def finish() -> Generator[PyinfraCommand, None, None]:
    """Fails the host, and with it the deploy's exit code, where a measure was refused or failed."""
    this_host = current_host()
    journal.note(this_host.name, "executed" if state.is_executing else "planned")
    if state.is_executing and RUNS[this_host].trouble:
        yield FunctionCommand(fail, [], {})


def fail(state: State, host: Host) -> bool:
    for line in RUNS[host].trouble:
        logger.error(f"{host.print_prefix}{click.style('not applied', 'red')}: {line}")
    return False
