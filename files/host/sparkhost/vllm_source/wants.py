"""What vLLM needs that is not there: run by the build's own Python, which has `packaging`. Changes nothing.

`wants.py NAME DIRECTORY…` prints a line of JSON, `{"missing": […], "unfit": […]}`: the requirements of the distribution
NAME, and of all that it needs, which no distribution in these directories meets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution, distributions

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


def lacking(name: str, places: Sequence[str]) -> Mapping[str, list[str]]:
    """The requirements that are not met: `missing`, no such distribution; `unfit`, another version (both named)."""
    there: dict[str, Distribution] = {}
    for found in distributions(path=list(places)):  # the first one is what an import takes
        there.setdefault(canonicalize_name(found.metadata["Name"] or ""), found)
    missing: set[str] = set()
    unfit: set[str] = set()
    waiting, seen = [(canonicalize_name(name), "")], set()
    while waiting:
        task = waiting.pop()
        if task in seen:
            continue
        seen.add(task)
        name, extra = task
        for line in there[name].requires or ():
            try:
                wanted = Requirement(line)
            except InvalidRequirement:
                continue  # published metadata have such lines; no installer heeds them either
            if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
                continue
            key = canonicalize_name(wanted.name)
            bare = f"{wanted.name}{wanted.specifier}"
            if key not in there:
                missing.add(f"{wanted.name} @ {wanted.url}" if wanted.url else bare)
            elif not wanted.specifier.contains(there[key].version, prereleases=True):
                unfit.add(f"{name} wants {bare}, there is {there[key].version}")
            else:
                waiting += [(key, ""), *((key, word) for word in wanted.extras)]
    return {"missing": sorted(missing), "unfit": sorted(unfit)}


if __name__ == "__main__":
    print(json.dumps(lacking(sys.argv[1], sys.argv[2:])))
