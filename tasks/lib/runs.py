"""What a deploy knows about each host while it runs, and what it tells about it: on the terminal and in the journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import click
from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.state import StateStage
from pyinfra.context import state

from sparkfleet.mistakes import VERBOSE, mistake
from sparkhost.base.history import result_of, worse
from tasks.lib import journal
from tasks.lib.wanted import AFTER_RELOAD, Wanted
from tasks.lib.way import Way


@dataclass
class Run:
    """What a deploy knows about one host while it runs."""

    wanted: Wanted
    way: Way
    """How its commands become root."""
    plan: dict[str, Any] = field(default_factory=dict)
    """The plan in force, by measure."""
    stage: StateStage | None = None
    """The stage in which the plan was made: each of pyinfra's two phases looks for itself."""
    trouble: list[str] = field(default_factory=list)
    """One line for each refusal or failure of a measure."""
    warned: set[str] = field(default_factory=set)
    """Warnings that have been shown: a plan is made more than once."""
    last: dict[str, Any] | None = None
    """The last deploy in the host's history."""
    stands: dict[str, Any] = field(default_factory=dict)
    """How each measure stands by the host's history."""
    results: dict[str, str] = field(default_factory=dict)
    """What came of each measure, where there is anything to say."""
    changing: bool = False
    """Whether this run has the host's lock, or was about to take it."""


RUNS: WeakKeyDictionary[Host, list[Run]] = WeakKeyDictionary()
"""One for each call of `deploy`, in order."""
T = TypeVar("T")


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
    if os.environ.get(VERBOSE):  # of a mistake of ours on the host
        for line in str(result.get("traceback", "")).splitlines():
            logger.error(f"{host.print_prefix}{measure}: {line}")
    run.results[measure] = worse(run.results.get(measure, "clean"), result_of(result))
    for line in [*result["refused"], *([result["error"]] if result["error"] else [])]:
        run.trouble.append(f"{measure}: {line}")
        logger.error(f"{host.print_prefix}{measure}: {line}")


def trouble(host: Host, run: Run, measure: str, problem: str) -> None:
    """Notes what went wrong with a measure besides what the host has answered of it."""
    measure = shown(measure)
    run.results[measure] = "failed"
    run.trouble.append(f"{measure}: {problem}")
    logger.error(f"{host.print_prefix}{measure}: {problem}")
    journal.note(host.name, "trouble", measure=measure, problem=problem)


def contained(host: Host, run: Run, measure: str, act: Callable[[], T], otherwise: T) -> T:
    """What `act` returns. The last `except` around a measure of a host: pyinfra would end the run for every host."""
    try:
        return act()
    except Exception as error:
        run.plan = {}  # what comes after is looked at again
        trouble(host, run, measure, mistake(error))
        return otherwise


def told(host: Host, event: str, measure: str, result: dict[str, Any]) -> None:
    changes = [{key: change[key] for key in ("what", "summary", "diff")} for change in result["changes"]]
    journal.note(host.name, event, measure=measure, changes=changes, refused=result["refused"], error=result["error"])
