"""Makes our package `tasks` importable without the name: a site's deploy may have a `tasks` of its own.

pyinfra puts the directory of a deploy first on the path, and `tasks/` is what its users call their
files. So `import tasks` there is theirs; our modules keep each other by reference, and need the
name only while they load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
_OURS: dict[str, ModuleType] = {}


def is_tasks(name: str) -> bool:
    return name == "tasks" or name.startswith("tasks.")


@contextmanager
def own_tasks() -> Iterator[None]:
    """Inside, `import tasks` finds ours; afterwards what it found before."""
    theirs = {name: sys.modules.pop(name) for name in list(sys.modules) if is_tasks(name)}
    if getattr(theirs.get("tasks"), "__file__", None) == str(ROOT / "tasks" / "__init__.py"):
        _OURS.update(theirs)  # one copy of each, where a deploy of ours has it already
    sys.modules.update(_OURS)
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT))
        for name in [name for name in sys.modules if is_tasks(name)]:
            _OURS[name] = sys.modules.pop(name)
        sys.modules.update(theirs)


def measure_of(name: str) -> ModuleType:
    """The module of a measure, `tasks.NAME`."""
    with own_tasks():
        return import_module(f"tasks.{name}")
