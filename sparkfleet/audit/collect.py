"""Sends the probe to hosts, all at the same time, and makes evidence of what they answer. Judges nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparkfleet import foreign
from sparkfleet.audit.backend import Broken, Conversation, Here, OverSsh, answer_of
from sparkfleet.audit.model import Evidence, HostRun, Observation
from sparkfleet.audit.password import SudoPassword
from sparkfleet.audit.probe import program
from sparkfleet.audit.probe.frame import BEGIN, BadFrame, unframed
from sparkfleet.enrol.ssh import LOST, Route
from sparkfleet.exit_codes import CommandFailed
from sparkfleet.mistakes import mistake
from sparkfleet.settings import FleetHost, HostSettings
from sparkfleet.settings.problems import escaped

LOCAL = "@local"
SECONDS = 120.0
"""Most that one host may take, from connection to answer."""
AT_ONCE = 64
MOST_OBSERVATIONS = 500
LONGEST_PROBLEM = 300
BLOCKS = ("command", "output", "error")
"""Texts of an observation that may have several lines."""


@dataclass(frozen=True)
class Target:
    """A host to look at. `route`: None for this machine itself."""

    name: str
    settings: HostSettings
    route: Route | None


def target_of(host: FleetHost, known_hosts: Path) -> Target:
    """A fleet file's host, reached as the deploy reaches it: the fleet's host keys, and none else."""
    route = Route(host.name, host.address or host.name, host.port, host.user, known_hosts.expanduser(), host.ssh_key)
    return Target(host.name, host.settings, route)


def collect(targets: Sequence[Target], seconds: float = SECONDS) -> tuple[HostRun, ...]:
    """The runs of all hosts, in their order; a host that fails is a run without evidence, never an exception."""
    password = SudoPassword()
    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(targets)))) as pool:
        return tuple(pool.map(lambda target: look_at(target, password, seconds), targets))


def look_at(target: Target, password: SudoPassword, seconds: float = SECONDS) -> HostRun:
    """One host's part of a run."""
    began = time.monotonic()

    def failed(problem: str, unreachable: bool = False) -> HostRun:
        return HostRun(target.name, None, one_line(problem), unreachable, seconds=time.monotonic() - began)

    token = secrets.token_hex(12)
    try:
        rc, output, errors = converse(target, token, seconds, password.get)
    except (Broken, CommandFailed) as error:
        return failed(str(error))
    except OSError as error:
        return failed(f"ssh cannot be started: {error}")
    except Exception as error:  # this host's part only
        return failed(mistake(error))
    said = errors.decode(errors="replace")
    if rc == LOST and BEGIN.encode() not in output:
        return failed(last_lines(said) or "ssh ended with 255 and said nothing", unreachable=True)
    try:
        evidence, boot_id, problem = read_document(unframed(output, token, foreign.loads))
    except BadFrame as error:
        hint = last_lines(said)
        return failed(f"{error}{f' ({hint})' if hint else ''}; the command ended with {rc}")
    except Exception as error:
        return failed(mistake(error))
    if problem and password.problem:
        problem = f"{problem}: {password.problem}"
    return HostRun(target.name, evidence, one_line(problem), False, boot_id, round(time.monotonic() - began, 3))


def converse(target: Target, token: str, seconds: float, password: Callable[[], str]) -> tuple[int, bytes, bytes]:
    """Runs the probe. Raises Broken where the limits are passed."""
    # The probe ends a little earlier than we hang up, so that it can say what it waits for.
    line = program.parameters(target.settings, token, ssh=target.route is not None, seconds=seconds * 0.9)
    request = program.source() + line
    conversation = Conversation(request, token, seconds, password)
    backend = OverSsh(target.route, conversation) if target.route else Here(conversation)
    return answer_of(backend, program.command())


def read_document(document: dict[str, Any]) -> tuple[Evidence, str, str]:
    """Evidence, boot id and problem of a document. It comes from a host: nothing in it is taken for granted.

    Raises:
        BadFrame: it has another form.
    """
    try:
        document = foreign.plain(document, BLOCKS)
    except foreign.NotPlain as error:
        raise BadFrame(f"the probe's document is {error}") from error
    observations, boot_id, problem = (document.get(key) for key in ("observations", "boot_id", "problem"))
    if not isinstance(observations, dict) or not isinstance(boot_id, str) or not isinstance(problem, str):
        raise BadFrame("the probe's document has another form than this version's")
    if len(observations) > MOST_OBSERVATIONS:
        raise BadFrame(f"the probe's document has more than {MOST_OBSERVATIONS} observations")
    return evidence_of(observations), boot_id[:64], problem


def evidence_of(observations: dict[str, Any]) -> Evidence:
    """Observations as JSON has them, as evidence.

    Raises:
        BadFrame: one has another form.
    """
    found = {}
    for name, value in observations.items():
        if not isinstance(value, dict):
            raise BadFrame("an observation is no object")
        command, output, rc, error = (value.get(key) for key in ("command", "output", "rc", "error"))
        texts = isinstance(command, str) and isinstance(output, str) and isinstance(error, str)
        if not texts or type(rc) is not int:
            raise BadFrame(f"the observation {name[:40]} has another form")
        found[name] = Observation(str(command), str(output), rc, str(error))
    return Evidence(found)


def last_lines(text: str) -> str:
    """The end of what ssh said on its standard error."""
    return "; ".join([line.strip() for line in text.splitlines() if line.strip()][-3:])


def one_line(text: str) -> str:
    """Text for one line of a terminal."""
    line = escaped(" ".join(text.split()))
    return line if len(line) <= LONGEST_PROBLEM else line[: LONGEST_PROBLEM - 1] + "…"
