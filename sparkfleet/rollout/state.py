"""How far a rollout has come: a file on the controller that is whole at every moment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings.problems import escaped
from sparkfleet.state_files import replace_file, state_file


class Progress(StrEnum):
    """How a host stands in a rollout."""

    UNTOUCHED = "untouched"
    STARTED = "started"
    """Its batch was begun: after a kill nobody knows how far it came, and it is deployed again."""
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It was in use."""
    UNREACHABLE = "unreachable"
    """It was not reached before anything was done to it."""


@dataclass(frozen=True)
class RunState:
    """A rollout. `fleet_digest`: SHA-256 of the fleet file's bytes; `commit`: of the checkout."""

    fleet_digest: str
    commit: str
    hosts: dict[str, Progress]

    def left(self) -> tuple[str, ...]:
        """What a resumed run has to do, in the order of the run."""
        return tuple(host for host, progress in self.hosts.items() if progress is not Progress.DONE)


def path_of(fleet_file: Path) -> Path:
    """The state file of a fleet file, in the XDG state directory."""
    return state_file("rollout", fleet_file)


def save(path: Path, state: RunState) -> None:
    """Replaces the file in one step. Raises CommandFailed where it cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, json.dumps({"schema": 1, **asdict(state)}))
    except OSError as error:
        raise CommandFailed(f"{escaped(str(path))}: cannot be written: {error.strerror}") from error


def load(path: Path, fleet_digest: str, commit: str) -> RunState:
    """The run to resume.

    Raises:
        CommandFailed: there is none, it is damaged, or it began with another fleet file or commit.
    """
    where = escaped(str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] != 1:
            raise ValueError("another schema")
        hosts = {str(host): Progress(progress) for host, progress in found["hosts"].items()}
        state = RunState(str(found["fleet_digest"]), str(found["commit"]), hosts)
    except FileNotFoundError as error:
        raise _bad("--resume: no rollout of this fleet file was begun: leave --resume out") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad(f"{where}: cannot be read, or is damaged: move it away and start without --resume") from error
    for what, then, now in (("fleet file", state.fleet_digest, fleet_digest), ("commit", state.commit, commit)):
        if then != now:
            raise _bad(f"--resume: the {what} is another than when the run began: start anew, without --resume")
    return state


def _bad(text: str) -> CommandFailed:
    return CommandFailed(text, ExitCode.BAD_CONFIGURATION)
