"""Who deploys, and from what: for the lock and the history on every host (ADR 11)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from gevent.lock import BoundedSemaphore

from sparkfleet.owner import owner
from sparkfleet.settings import HostSettings
from sparkfleet.version import LONGEST
from sparkfleet.version import version as described

# Names this process's deploy on every host.
TOKEN = uuid4().hex
# Hosts come here at the same time: the first asks git, the others wait for its answer.
_ASKING = BoundedSemaphore()


def version() -> str:
    """The commit of this checkout (`sparkfleet.version`)."""
    with _ASKING:
        return described()


def digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def deploy_of(settings: HostSettings, measures: Iterable[str], *, local: bool) -> dict[str, Any]:
    """What a host is told about this deploy. `local`: the host is this machine itself.

    `values`: the settings themselves, which the host keeps for `sparkfleet undo`.
    """
    dumped = settings.model_dump(mode="json")
    values = {name: dumped[name] for name in measures}
    return {
        "token": TOKEN,
        "by": owner(),
        "pid": os.getpid() if local else None,
        "version": version(),
        "fleet_file": os.environ.get("FLEET", "")[-LONGEST:],
        "settings": digest(values),
        "measures": {
            name: {"state": one["state"], "settings": digest(one), "values": one} for name, one in values.items()
        },
    }


def to_record(deploy: dict[str, Any], results: dict[str, str], last: dict[str, Any] | None, *, changed: bool) -> bool:
    """Whether a deploy has anything to say that the last entry of a host's history does not say already."""
    if last is None:
        return changed or any(measure["state"] == "present" for measure in deploy["measures"].values())
    told = {name: one["result"] for name, one in last["measures"].items() if one["result"] not in ("clean", "changed")}
    bad = {name: result for name, result in results.items() if result not in ("clean", "changed")}
    same = all(last.get(key) == deploy[key] for key in ("version", "settings"))
    return changed or not same or bad != told or last.get("ended") is None
