"""Makes a pyinfra operation of a measure: plan by one command, apply by one a part, fail by what the host refuses.

The host does the work (ADR 2), as in our own deploy: these are its functions (`tasks.lib.converge`)
for one measure, with a run of its own. What differs is what somebody else's deploy needs: nothing
of pyinfra is extended (`tasks.lib.way`), the operation itself fails where the measure does, and it
counts as one change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from pydantic import ValidationError
from pyinfra import logger
from pyinfra.api.arguments import all_global_arguments
from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta, operation
from pyinfra.api.state import State
from pyinfra.connectors.local import LocalConnector
from pyinfra.context import state

from sparkfleet.mistakes import mistake
from sparkfleet.own_tasks import measure_of
from sparkfleet.settings import HostSettings, Measure
from sparkhost.base.history import GOOD
from tasks.lib import converge
from tasks.lib.runs import Run, contained
from tasks.lib.wanted import wanted
from tasks.lib.way import Way

MeasureOperation = Callable[..., OperationMeta]
NO_ROOT = "runs as another user than root: add _sudo=True to the operation, or --sudo to pyinfra"


def operation_of(measure: str) -> MeasureOperation:
    """The operation of a measure. What is wrong with its settings fails the host, one line each; it raises nothing."""
    model = cast(type[Measure], HostSettings.model_fields[measure].annotation)

    def converge_measure(problems: Sequence[str], settings: dict[str, Any]) -> Generator[PyinfraCommand, None, None]:
        yield from commands(measure, problems, settings)

    # What pyinfra shows as the operation's name.
    converge_measure.__module__, converge_measure.__name__ = "sparkfleet", measure
    planned = cast(Callable[..., OperationMeta], operation()(converge_measure))
    of_pyinfra = {name for name, _ in all_global_arguments()}

    def call(*arguments: Any, **named: Any) -> OperationMeta:
        settings = {key: value for key, value in named.items() if key not in of_pyinfra}
        if arguments:
            settings.setdefault("state", arguments[0])
        others = {key: value for key, value in named.items() if key in of_pyinfra}
        others.setdefault("name", shown_as(measure, settings))
        problems = too_many(measure, arguments) or problems_in(measure, settings)
        if problems and not state.is_executing:
            tell(converge.current_host(), problems)
        made = planned(problems=problems, settings=settings, **others)
        if problems and not state.is_executing:
            state.fail_hosts({converge.current_host()})  # type: ignore[no-untyped-call]
        return made

    call.__name__ = call.__qualname__ = measure
    call.__module__, call.__doc__ = "sparkfleet.operations", described(measure, model)
    call.__signature__ = signature(model)  # type: ignore[attr-defined]
    return call


def shown_as(measure: str, settings: dict[str, Any]) -> str:
    """`sparkfleet.swap (mode=off)`: what is set, short enough for pyinfra's table."""
    given = ", ".join(f"{key}={value}" for key, value in settings.items() if isinstance(value, str | int | float))
    return f"sparkfleet.{measure} ({given})" if given and len(given) <= 60 else f"sparkfleet.{measure}"


def too_many(measure: str, arguments: Sequence[Any]) -> list[str]:
    """What is wrong with a call that gives more than `state` by its place."""
    return [f"{measure}: all settings but state are given by name"] if len(arguments) > 1 else []


def problems_in(measure: str, settings: dict[str, Any]) -> list[str]:
    """What is wrong with settings, in the fleet file's words."""
    try:
        HostSettings.model_validate({measure: settings})
    except ValidationError as error:
        return converge.wrong_settings(error)
    return []


def described(measure: str, model: type[Measure]) -> str:
    """The docstring: from the settings' own."""
    keys = "\n".join(f"+ {name}: {field.description}" for name, field in model.model_fields.items())
    says = inspect.cleandoc(model.__doc__ or "")
    example = f"    from sparkfleet.operations import {measure}\n\n    {measure}(_sudo=True)"
    return f"{says}\n\n{keys}\n\nExample:\n\n{example}\n"


def signature(model: type[Measure]) -> inspect.Signature:
    """The keywords with the defaults that hold without them.

    `state` by its place too: from the shell, pyinfra takes `state=` for an argument of its own function.
    """
    by_name, by_place = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(
                name, by_place if name == "state" else by_name, default=field.default, annotation=field.annotation
            )
            for name, field in model.model_fields.items()
        ]
    )


def commands(measure: str, problems: Sequence[str], settings: dict[str, Any]) -> Generator[PyinfraCommand, None, None]:
    """What pyinfra runs twice: to see whether there is anything to do, and to do it."""
    host = converge.current_host()
    run = None if problems else begun(host, measure, settings, host.current_op_global_arguments or {})
    parts = [part["name"] for part in run.wanted.measures] if run else []
    plan: Mapping[str, Any] | None = None
    while run and parts:
        plan = looked_at(host, run, parts[0])
        if plan is None or plan["changes"]:
            break
        parts.pop(0)
    if run is None or (parts and plan is None):
        if state.is_executing:
            yield FunctionCommand(failed, [], {})
        elif not problems:  # those have failed the host before
            state.fail_hosts({host})  # type: ignore[no-untyped-call]
    elif parts:
        yield FunctionCommand(make, [run, measure, parts], {})
    elif state.is_executing and not ended(host, run, measure):
        yield FunctionCommand(failed, [], {})


def begun(host: Host, measure: str, settings: dict[str, Any], arguments: Mapping[str, Any]) -> Run | None:
    """What an operation with these pyinfra arguments knows of a host; None: it cannot begin, which has been logged."""
    way = Way.of(arguments)
    if way.lacks_root(host):
        tell(host, [f"{measure}: {NO_ROOT}"])
        return None
    local = isinstance(host.connector, LocalConnector)
    try:
        return Run(wanted({measure: settings}, [measure_of(measure)], local=local), way)
    except Exception as error:  # raised further, it would end the run for every host
        tell(host, [f"{measure}: {mistake(error)}"])
        return None


def looked_at(host: Host, run: Run, part: str) -> Mapping[str, Any] | None:
    """The plan of a part, shown; None where the host is given up."""
    nothing: Mapping[str, Any] | None = converge.EMPTY
    return contained(host, run, part, lambda: converge.look(host, run, part), nothing)


def make(state: State, host: Host, run: Run, measure: str, parts: Sequence[str]) -> bool:
    """Makes these parts of a measure so. False, which fails the operation, where anything of it did not come to be."""
    for part in parts:
        plan = looked_at(host, run, part)
        if plan is None:
            return False
        change = partial(converge.made, state, host, run, part)
        if plan["changes"] and not contained(host, run, part, change, True):
            return False
    return ended(host, run, measure)


def ended(host: Host, run: Run, measure: str) -> bool:
    """Gives the host's lock back and notes the measure in its history, where there is anything new to note.

    Whether the measure is so, and that could be done.
    """
    if not run.changing and stands_so(run, measure):
        return not run.trouble
    closed = contained(host, run, measure, lambda: converge.close(host, run, measure), False)
    return closed and not run.trouble


def stands_so(run: Run, measure: str) -> bool:
    """Whether a host's history has of a measure what has just been found."""
    wants, stands = run.wanted.deploy["measures"][measure], run.stands.get(measure)
    result = run.results.get(measure, "clean")
    if wants["state"] != "present":
        return stands is None or result not in GOOD or wants["state"] == "unmanaged"
    if stands is None or stands.get("settings") != wants["settings"]:
        return False
    return (stands.get("result") in GOOD) == (result in GOOD)


def failed(state: State, host: Host) -> bool:
    """Fails a host by a command: an exception would end the run for all of them. Why has been logged."""
    return False


def tell(host: Host, problems: Sequence[str]) -> None:
    for problem in problems:
        logger.error(f"{host.print_prefix}{problem}")
