"""The one pyinfra operation behind every measure: plan on the host, show, apply, plan the rest.

Why not a pyinfra operation per file: ADR 2. In short: standard operations cost 1 to 3 SSH commands each in each
of pyinfra's two phases, are not atomic, and cannot say "refused" without ending the run for that host.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict
from types import ModuleType
from typing import Any, cast

import click
import gevent
from paramiko import SSHException
from pydantic import ValidationError
from pyinfra import logger
from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.config import Config
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.connectors.local import LocalConnector
from pyinfra.context import ctx_config, ctx_host, state

from sparkfleet.foreign import line
from sparkfleet.mistakes import mistake
from sparkfleet.settings import HostSettings
from sparkfleet.settings.explain import contradictions_of, problems_of
from sparkfleet.settings.problems import dotted
from sparkhost.base.resource import Need, from_json
from tasks.lib import connection, journal, link_proof, origin, others, proof, remote, wheels
from tasks.lib.answer import Busy, Malformed, parsed
from tasks.lib.runs import RUNS, Run, contained, report, show, shown, trouble, warn
from tasks.lib.wanted import wanted
from tasks.lib.way import Way

# Seconds. A plan only looks; a change may have to read swapped pages back, or unpack a large archive.
PLAN_TIMEOUT = 120
APPLY_TIMEOUT = 1800
EMPTY: Mapping[str, Any] = {"changes": []}
"""The plan of a measure that could not be planned: nothing to do."""


def current_host() -> Host:
    """The host that pyinfra is preparing or changing now; not the proxy, which differs by greenlet."""
    return cast(Host, ctx_host.get())  # type: ignore[no-untyped-call]


def deploy(*measures: ModuleType) -> None:
    """Converges the current host to the measures, in this order; each is a module of `tasks/`.

    Settings come from the fleet file, or are the defaults (`pyinfra @local deploy.py`). A measure that is refused
    or fails does not stop the others: the last operation reports it, and fails the host. Several calls come one after
    the other, each with an end of its own; so does what belongs to one measure in two of them.
    """
    this_host = current_host()
    local = isinstance(this_host.connector, LocalConnector)
    try:
        made_once = wanted(this_host.data.get("settings") or {}, measures, local=local)
        run = Run(made_once, Way({"_sudo": True}))  # every measure changes the system
    except Exception as error:
        for problem in wrong_settings(error, "settings"):
            give_up(this_host, "settings", problem, lost=False)
        state.fail_hosts({this_host})  # type: ignore[no-untyped-call]
        return
    others.watch(this_host.state)
    runs = RUNS.setdefault(this_host, [])
    runs.append(run)
    # In a greenlet, whose stack is short: pyinfra has Python look up the source of each frame above an operation, and
    # deploy.py, which is no module, is looked for among all that are loaded (docs/upstream-pyinfra.md, 8).
    gevent.spawn(operations, this_host, ctx_config.get(), run, len(runs) - 1).get()  # type: ignore[no-untyped-call]


def operations(host: Host, config: Config, run: Run, turn: int) -> None:
    """Adds the operations of a run to a host: one for each measure, and the last, which tells how it went."""
    here = {entry["name"] for entry in run.wanted.measures}
    # A place for each on every host: pyinfra takes operations of the same place for one, and hosts may lack some.
    with ctx_host.use(host), ctx_config.use(config):
        for at in host.loop(range(turn + 1)):  # type: ignore[no-untyped-call]
            for name in host.loop(run.wanted.places if at == turn else ()):  # type: ignore[no-untyped-call]
                if name in here:
                    others.ours(converge(name=name, measure=name, turn=turn))
            if at == turn:
                others.ours(finish(name="finish", turn=turn))


def wrong_settings(error: Exception, *under: str) -> list[str]:
    """Why nothing can be wanted of a host, one line each: keys of its settings, mostly; `under`: where those are."""
    if not isinstance(error, ValidationError):
        return [mistake(error)]
    found = problems_of(error, HostSettings) + contradictions_of(error, HostSettings)
    return [f"{dotted((*under, *problem.path))}: {problem.text}" for problem in found]


@operation()
def converge(measure: str, turn: int) -> Generator[PyinfraCommand, None, None]:
    """Brings one measure of the current host to its wanted state; no command where it is there already."""
    this_host = current_host()
    run = RUNS[this_host][turn]
    nothing: Mapping[str, Any] | None = EMPTY
    plan = contained(this_host, run, measure, lambda: look(this_host, run, measure), nothing)
    if plan is None:
        # A host fails by a failing command: an exception here would end the run for all of them.
        if state.is_executing:
            yield FunctionCommand(fail, [turn], {})
        else:
            state.fail_hosts({this_host})  # type: ignore[no-untyped-call]
    elif plan["changes"]:
        yield FunctionCommand(apply, [measure, turn], {})


def look(host: Host, run: Run, measure: str) -> Mapping[str, Any] | None:
    """What a measure would change, shown; None where the host is given up."""
    if run.stage != state.current_stage or measure not in run.plan:
        run.stage, run.plan = state.current_stage, {}
        request = run.wanted.plan(measure, until_change=state.is_executing)
        answer = ask(host, run.way, measure, request, PLAN_TIMEOUT, "history")
        if answer is None:
            return None
        if measure not in answer["plan"]:
            give_up(host, measure, "the answer has no plan for it", lost=False)
            return None
        run.plan, run.last = answer["plan"], answer["history"]["last"]
        run.stands = answer["history"]["measures"]
        if not state.is_executing:
            settings = {name: one["settings"] for name, one in run.wanted.deploy["measures"].items()}
            version = run.wanted.deploy["version"]
            journal.note(host.name, "history", version=version, wanted=settings, applied=run.stands)
    plan: dict[str, Any] = run.plan[measure]
    warn(host, run, measure, plan)
    if not state.is_executing:
        show(host, measure, plan, "would ")
    elif not plan["changes"]:
        report(host, run, measure, plan)
    return plan


def ask(host: Host, way: Way, measure: str, request: str, timeout: int, *needed: str) -> dict[str, Any] | None:
    """Sends a request to sparkhost on a host; its answer, or None where there is none, which has been logged.

    `needed`: what the answer must have (`tasks.lib.answer`).
    """
    lost = False
    try:
        ok, output = way.run(host.connector, remote.COMMAND, request, timeout)
        if ok and output.stdout_lines:
            return parsed(output.stdout_lines[-1], *needed)
        problem = (output.stderr_lines or ["no answer"])[-1]
        if not output.stderr_lines and connection.is_gone(host.connector):
            lost, problem = True, "lost the host: the connection broke"
    except (Malformed, Busy) as error:
        problem = str(error)
    except (OSError, EOFError, SSHException) as error:
        lost, problem = True, lost_by(error, timeout)
    give_up(host, measure, problem, lost=lost)
    return None


def lost_by(error: BaseException, timeout: int) -> str:
    """Why a host is given up, one line. `tasks.lib.bounds`' TimeoutError says nothing."""
    if isinstance(error, TimeoutError) and not str(error):
        return f"lost the host: nothing was heard for {timeout} s"
    return f"lost the host: {line(' '.join(str(error).split())) or type(error).__name__}"


def give_up(host: Host, measure: str, problem: str, *, lost: bool) -> None:
    """Says why no more is done on a host in this run."""
    measure = shown(measure)
    logger.error(f"{host.print_prefix}{measure}: {problem}")
    journal.note(host.name, "lost" if lost else "trouble", measure=measure, problem=problem)


def apply(state: State, host: Host, measure: str, turn: int) -> bool:
    """Applies one measure on a host and takes over the plan for the rest that comes back with the answer."""
    run = RUNS[host][turn]
    # True: this measure only. `finish` fails the host, the others go on.
    return contained(host, run, measure, lambda: made(state, host, run, measure), True)


def made(state: State, host: Host, run: Run, measure: str) -> bool:
    """Whether the host is still there after it was told to make a measure so."""
    uploads: dict[str, str] = {}
    try:
        if needed := {need.sha256: wheels.fetch(need) for need in needs(run, measure)}:
            uploads = wheels.deliver(
                host, needed, lambda text: logger.info(f"{host.print_prefix}{shown(measure)}: {text}")
            )
        run.changing = True
        told = {"deploy": run.wanted.deploy, "measure": shown(measure), "until_change": True}
        request = remote.request("apply", [*run.wanted.since(measure)], uploads, **told)
        answer = ask(host, run.way, measure, request, APPLY_TIMEOUT, "applied", "notes", "unproved")
        if uploads:
            wheels.take_away(host, uploads.values())
    except wheels.NoWheel as error:
        report(host, run, measure, {"changes": [], "refused": [], "error": str(error)})
        return True  # as above
    except (OSError, EOFError, SSHException) as error:
        give_up(host, measure, lost_by(error, APPLY_TIMEOUT), lost=True)
        return False
    if answer is None:
        return False
    run.plan = answer["plan"]
    for note in answer["notes"]:
        logger.warning(f"{host.print_prefix}{shown(measure)}: {note}")
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
    resources = run.wanted.of(measure)["resources"]
    named = {json.dumps(asdict(need)): need for r in resources for need in from_json(r).may_need()}
    asked = [json.dumps(need) for change in run.plan[measure]["changes"] for need in change["needs"]]
    if not named.keys() >= set(asked):
        raise wheels.NoWheel("the host asks for a wheel that its settings do not name: is it what it claims to be?")
    return [named[need] for need in dict.fromkeys(asked)]


def prove_guarded(state: State, host: Host, run: Run, measure: str) -> None:
    """Proves a guarded change; what went wrong is for `finish`."""
    for resource in run.wanted.of(measure)["resources"]:
        if resource["kind"] == "guarded":
            for problem in proof.prove(state, host, resource, run.way):
                trouble(host, run, measure, problem)
        elif resource["kind"] == "guarded_link":
            for problem in link_proof.prove(state, host, resource, run.way):
                trouble(host, run, measure, problem)


@operation()
def finish(turn: int) -> Generator[PyinfraCommand, None, None]:
    """Fails the host, and with it the deploy's exit code, where a measure was refused or failed."""
    this_host = current_host()
    run = RUNS[this_host][turn]
    if state.is_executing:
        recorded = contained(this_host, run, "finish", lambda: record(this_host, run), False)
        if run is RUNS[this_host][-1]:
            journal.note(this_host.name, "executed")
        if run.trouble or not recorded:
            yield FunctionCommand(fail, [turn], {})
    else:
        journal.note(this_host.name, "planned")


def record(host: Host, run: Run) -> bool:
    """Ends the deploy on a host: notes it in the host's history, and gives its lock back. Whether that could be done.

    No command where there is nothing to say that the last entry does not say.
    """
    if not origin.to_record(run.wanted.deploy, run.results, run.last, changed=run.changing):
        return True
    return close(host, run, "finish")


def close(host: Host, run: Run, measure: str) -> bool:
    """Has the host note the deploy in its history, and give its lock back. Whether that could be done."""
    request = remote.request("record", [], deploy=run.wanted.deploy, results=run.results)
    answer = ask(host, run.way, measure, request, PLAN_TIMEOUT, "notes")
    for note in answer["notes"] if answer else []:
        logger.warning(f"{host.print_prefix}{measure}: {note}")
    return answer is not None


def fail(state: State, host: Host, turn: int) -> bool:
    for problem in RUNS[host][turn].trouble:
        logger.error(f"{host.print_prefix}{click.style('not applied', 'red')}: {problem}")
    return False
