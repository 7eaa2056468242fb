"""Makes our package `tasks` importable without the name: a site's deploy may have a `tasks` of its own.

pyinfra puts the directory of a deploy first on the path, and `tasks/` is what its users call their
files. So `import tasks` there is theirs; our modules keep each other by reference, and need the
name only while they load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from sparkfleet.places import ROOT

_OURS: dict[str, ModuleType] = {}


def is_tasks(name: str) -> bool:
    return name == "tasks" or name.startswith("tasks.")


def _is_ours(spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.origin == str(ROOT / "tasks" / "__init__.py")


@contextmanager
def own_tasks() -> Iterator[None]:
    """Inside, `import tasks` finds ours; afterwards what it found before.

    That is ours again where nobody else's is on the path, as in our own deploy: then there is one copy of each module.
    """
    theirs = {name: sys.modules.pop(name) for name in list(sys.modules) if is_tasks(name)}
    if _is_ours(getattr(theirs.get("tasks"), "__spec__", None)):
        _OURS.update(theirs)
        theirs = _OURS
    sys.modules.update(_OURS)
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT))
        for name in [name for name in sys.modules if is_tasks(name)]:
            _OURS[name] = sys.modules.pop(name)
        sys.modules.update(_OURS if not theirs and _is_ours(find_spec("tasks")) else theirs)


@cache
def measure_of(name: str) -> ModuleType:
    """The module of a measure, `tasks.NAME`."""
    with own_tasks():
        return import_module(f"tasks.{name}")
