"""Takes a site's own measures in: their settings beside ours in the fleet file, their controls beside ours in an audit.

`HostSettings` itself is given the fields, and `Registry` the controls: whoever has imported them has the site's too.
A process is about one project. Nothing of a project is imported under a name that a site's own modules could have.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from sparkfleet.settings import MEASURES, FleetFile, HostEntry, HostSettings, Measure
from sparkfleet.settings.problems import FleetError, escaped
from sparkfleet.site.project import MARK, project_in

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_used: set[Path] = set()


def use(folder: Path) -> None:
    """Takes in the measures of the project in a folder, if there is one; a second time, nothing more.

    Raises:
        FleetError: what is wrong with the project's files, or measures of another project are in already.
    """
    folder = folder.resolve()
    if folder in _used or (project := project_in(folder)) is None:
        return
    if _used:
        raise FleetError(
            [f"{folder / MARK}: measures of {next(iter(_used))} are in use: run a command for each project"]
        )
    _used.add(folder)
    for path in modules(project.folder / "settings"):
        take_settings(path)
    if any(True for _ in modules(project.folder / "controls")):
        from sparkfleet.site.controls import take_controls  # most commands have no use for the audit

        for path in modules(project.folder / "controls"):
            take_controls(path)


def modules(folder: Path) -> Iterator[Path]:
    """The modules in a folder of a project, by name."""
    yield from sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))


def take_settings(path: Path) -> None:
    """Gives `HostSettings` the measure of a file. Raises FleetError."""
    name = path.stem
    if name in MEASURES:
        raise wrong(path, f"{name} is a measure of sparkfleet's: choose another name")
    if not NAME.fullmatch(name):
        raise wrong(path, "the name is the measure's key in the fleet file: lower case, digits and _")
    module = loaded(path)
    found = [one for one in vars(module).values() if is_measure(one, module)]
    if len(found) != 1:
        raise wrong(path, f"has {len(found)} classes of sparkfleet.settings.Measure, expected one")
    (model,) = found
    try:
        default = model()
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise wrong(path, f"{model.__name__}.{where} has no default that fits: every key needs one") from error
    HostSettings.__pydantic_fields__[name] = FieldInfo.from_annotated_attribute(model, default)
    HostSettings.__annotations__[name] = model
    for changed in (HostSettings, HostEntry, FleetFile):
        changed.model_rebuild(force=True)


def is_measure(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and issubclass(value, Measure) and value.__module__ == module.__name__


def loaded(path: Path) -> ModuleType:
    """A module of a project. Raises FleetError, with the line of the file that is wrong."""
    spec = spec_from_file_location(f"sparkfleet.site.own.{path.parent.name}.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise wrong(path, "is no module of Python")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks its annotations up there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise wrong(
            path, f"is no Python: {error.msg}", error.lineno if error.filename == str(path) else None
        ) from error
    except Exception as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise wrong(path, text, lines[-1] if lines else None) from error
    return module


def wrong(path: Path, text: str, line: int | None = None) -> FleetError:
    return FleetError([f"{escaped(str(path))}{f':{line}' if line else ''}: {escaped(text)}"])
