"""What was applied to this host: when, from which commit and fleet file, by whom, and what came of it. ADR 11.

Two things are kept in one file: the measures as they stand, and the last deploys. A measure that is applied is noted at
once, so that a deploy which is cut short has left its name.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, sync_directory, write_atomic
from sparkhost.base.resource import Failed

APPLIED = Path("/var/lib/sparkfleet/applied.json")
BEFORE = Path("/var/lib/sparkfleet/settings-before.json")
"""The settings themselves, for `sparkfleet undo`: root's alone, as variables and keys of people are among them."""
KEPT = 5
"""Settings that are kept a measure: those in force, and those before."""
FORMAT = 1
MOST = 30
"""Deploys that are kept: about 30 KB."""
GOOD = ("changed", "clean")


def empty() -> dict[str, Any]:
    return {"_": "managed by sparkfleet", "format": FORMAT, "measures": {}, "deploys": []}


def read() -> dict[str, Any]:
    """The file, or an empty one where there is none, or one that is damaged: a history must not stop a repair."""
    try:
        found = json.loads(bounded.read_text(APPLIED))
    except (Failed, OSError, ValueError, RecursionError):
        return empty()
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return empty()
    measures, deploys = found.get("measures"), found.get("deploys")
    if not isinstance(measures, dict) or not isinstance(deploys, list):
        return empty()
    told = [one.get("measures") for one in deploys if isinstance(one, dict)]
    results = [result for one in told if isinstance(one, dict) for result in one.values()]
    whole = len(told) == len(deploys) and all(isinstance(one, dict) for one in (*measures.values(), *told, *results))
    return found if whole and all(isinstance(one.get("result"), str) for one in results) else empty()


def brief() -> dict[str, Any]:
    """What a controller needs to compare: the measures, and the last deploy (None: there was none)."""
    found = read()
    return {"measures": found["measures"], "last": found["deploys"][-1] if found["deploys"] else None}


def result_of(applied: dict[str, Any]) -> str:
    """One word for the answer to an apply."""
    if applied["error"]:
        return "failed"
    if applied["refused"]:
        return "refused"
    return "changed" if applied["changes"] else "clean"


def note(deploy: dict[str, Any], measure: str, applied: dict[str, Any]) -> None:
    """Notes one measure that has been applied. Raises OSError."""
    found = read()
    current = current_of(found, deploy)
    before = current["measures"].get(measure, {"changes": 0, "result": "clean"})
    result = worse(before["result"], result_of(applied))
    current["measures"][measure] = {"changes": before["changes"] + len(applied["changes"]), "result": result}
    stand(found, deploy, measure, result, done=False)
    save(found)


def close(deploy: dict[str, Any], results: dict[str, str]) -> None:
    """Ends a deploy. `results`: by measure, what came of it where that is not `clean`. Raises OSError.

    The file goes with the last measure: a host that has left the fleet keeps nothing of it.
    """
    found = read()
    current = current_of(found, deploy)
    current["ended"] = now()
    for measure, wanted in deploy["measures"].items():
        if wanted["state"] != "unmanaged":
            result = results.get(measure, "clean")
            count = current["measures"].get(measure, {"changes": 0})["changes"]
            current["measures"][measure] = {"changes": count, "result": result}
            stand(found, deploy, measure, result, done=True)
    if found["measures"]:
        save(found)
    elif APPLIED.exists():
        APPLIED.unlink()
        BEFORE.unlink(missing_ok=True)
        sync_directory(APPLIED.parent)


def current_of(found: dict[str, Any], deploy: dict[str, Any]) -> dict[str, Any]:
    """The entry of this deploy, made where it is not there yet; the oldest go."""
    deploys = found["deploys"]
    if not deploys or deploys[-1].get("token") != deploy["token"]:
        keys = ("token", "by", "version", "fleet_file", "settings")
        deploys.append({"at": now(), **{key: deploy[key] for key in keys}, "ended": None, "measures": {}})
        del deploys[:-MOST]
    entry: dict[str, Any] = deploys[-1]
    return entry


def stand(found: dict[str, Any], deploy: dict[str, Any], measure: str, result: str, *, done: bool) -> None:
    """How a measure stands from now on. What was removed does not, once the deploy is through with it."""
    wanted = deploy["measures"].get(measure)
    if wanted is None or wanted["state"] == "unmanaged":
        return
    if done or result in GOOD:
        keep(deploy, measure, wanted)
    if wanted["state"] == "absent":
        if done and result in GOOD:
            found["measures"].pop(measure, None)
        return
    found["measures"][measure] = {
        "at": now(),
        "by": deploy["by"],
        "version": deploy["version"],
        "fleet_file": deploy["fleet_file"],
        "settings": wanted["settings"],
        "result": result,
    }


def keep(deploy: dict[str, Any], measure: str, wanted: dict[str, Any]) -> None:
    """Keeps a measure's settings beside those before, where they differ from the last ones. Raises OSError."""
    if "values" not in wanted:  # an older controller
        return
    found = settings_kept()
    mine = found["measures"].setdefault(measure, [])
    if mine and mine[-1].get("settings") == wanted["settings"]:
        return
    mine.append({"at": now(), "token": deploy["token"], "settings": wanted["settings"], "values": wanted["values"]})
    del mine[:-KEPT]
    make_directories(BEFORE.parent)
    write_atomic(BEFORE, (json.dumps(found, indent=1) + "\n").encode(), 0o600)


def settings_kept() -> dict[str, Any]:
    """By measure the settings that were applied, the last ones last; nothing where the file is damaged."""
    nothing: dict[str, Any] = {"_": "managed by sparkfleet", "format": FORMAT, "measures": {}}
    try:
        found = json.loads(bounded.read_text(BEFORE))
    except (Failed, OSError, ValueError, RecursionError):
        return nothing
    measures = found.get("measures") if isinstance(found, dict) and found.get("format") == FORMAT else None
    if not isinstance(measures, dict) or not all(isinstance(one, list) for one in measures.values()):
        return nothing
    return found if all(isinstance(each, dict) for one in measures.values() for each in one) else nothing


def worse(first: str, second: str) -> str:
    order = ("clean", "changed", "refused", "failed")
    return max(first, second, key=order.index)


def save(found: dict[str, Any]) -> None:
    make_directories(APPLIED.parent)
    write_atomic(APPLIED, (json.dumps(found, indent=1) + "\n").encode(), 0o644)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
