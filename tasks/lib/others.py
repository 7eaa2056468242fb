"""What the operations of a deploy that are not ours would change, or did: for the journal, beside our measures.

A site's deploy has operations of pyinfra's own. `sparkfleet drift` and `sparkfleet deploy` tell of them as `site`.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta
from pyinfra.api.state import BaseStateCallback, State

from sparkfleet.foreign import line
from sparkfleet.mistakes import mistake
from tasks.lib import journal

SITE = "site"
_OURS: WeakSet[OperationMeta] = WeakSet()
_WATCHED: WeakSet[State] = WeakSet()


def ours(made: OperationMeta) -> None:
    """Leaves an operation out: it tells of itself."""
    _OURS.add(made)


def watch(state: State) -> None:
    """Has all that a run did on a host noted when the host is left; called again, it does nothing more."""
    if state not in _WATCHED:
        _WATCHED.add(state)
        state.add_callback_handler(_AtTheEnd())  # type: ignore[no-untyped-call]


class _AtTheEnd(BaseStateCallback):
    @staticmethod
    def host_disconnect(state: State, host: Host) -> None:
        try:
            for name, made, fails in operations(state, host):
                if told := event_of(name, made, fails):
                    event, facts = told
                    journal.note(host.name, event, measure=SITE, **facts)
        except Exception as error:  # an exception here would keep the others connected
            journal.note(host.name, "trouble", measure=SITE, problem=mistake(error))


def operations(state: State, host: Host) -> list[tuple[str, OperationMeta, bool]]:
    """The others' operations on a host, in order: name, what came of it, whether an error of it fails the host."""
    found = []
    for op_hash in host.op_hash_order:
        data = state.ops[host].get(op_hash)
        if data is not None and data.operation_meta not in _OURS:
            names = line(", ".join(sorted(state.get_op_meta(op_hash).names)))
            found.append((names, data.operation_meta, not data.global_arguments["_ignore_errors"]))
    return found


def event_of(name: str, made: OperationMeta, fails: bool) -> tuple[str, dict[str, Any]] | None:
    """The journal's event of an operation; None where there is nothing to tell."""
    plain: dict[str, Any] = {"changes": [], "refused": [], "error": None}
    change = {"what": name, "summary": "change it", "diff": ""}
    if not made.is_complete():
        return ("plan", {**plain, "changes": [change]}) if made._maybe_is_change else None
    if made.did_error():
        said = [one for one in made.stderr_lines if one.strip()] or made.stdout_lines or ["failed"]
        return ("applied", {**plain, "error": f"{name}: {line(said[-1])}"}) if fails else None
    return ("applied", {**plain, "changes": [change]}) if made.did_change() else None
