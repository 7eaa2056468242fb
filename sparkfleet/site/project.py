"""Which project a command is about: that of the fleet file's folder, else that of the current one."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sparkfleet.settings import chosen_fleet_file as named_fleet_file
from sparkfleet.settings.problems import FleetError, escaped, show
from sparkfleet.version import UNKNOWN, release

MARK = "pyproject.toml"
LARGEST = 1024 * 1024
"""Bytes of a pyproject.toml."""


@dataclass(frozen=True)
class Project:
    """A folder whose pyproject.toml has `[tool.sparkfleet]`."""

    folder: Path
    fleet_file: Path
    """`fleet` of that table, else `fleet.yaml`."""

    @property
    def deploy(self) -> Path:
        return self.folder / "deploy.py"


def project_in(folder: Path) -> Project | None:
    """The project in a folder; None where there is none. A folder above is not looked for: what is there is run.

    Raises:
        FleetError: its pyproject.toml has mistakes, or wants another sparkfleet; one line.
    """
    path = folder / MARK
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError:
        return None
    shown = escaped(str(path))
    try:
        if len(data) > LARGEST:
            raise FleetError([f"{shown}: is larger than {LARGEST // 1024} KiB"])
        raw = tomllib.loads(data.decode())
        table = raw.get("tool", {}).get("sparkfleet")
    except (ValueError, RecursionError, AttributeError) as error:
        raise FleetError([f"{shown}: is not TOML: {escaped(' '.join(str(error).split()))}"]) from error
    if table is None:
        return None
    if not isinstance(table, dict) or not set(table) <= {"fleet"}:
        raise FleetError([f"{shown}: tool.sparkfleet: expected `fleet` alone, the fleet file"])
    name = table.get("fleet", "fleet.yaml")
    if not isinstance(name, str) or not name:
        raise FleetError([f"{shown}: tool.sparkfleet.fleet: got {show(name)}, expected the path of the fleet file"])
    if problem := of_another_version(raw):
        raise FleetError([f"{shown}: {problem}"])
    return Project(folder, folder / name)


def of_another_version(raw: dict[str, Any]) -> str:
    """Why this sparkfleet is not the one that the project's dependencies name; "" where it is, or none is named."""
    project = raw.get("project")
    listed = project.get("dependencies") if isinstance(project, dict) else None
    ours = release()
    for text in listed if isinstance(listed, list) and ours != UNKNOWN else ():
        try:
            wanted = Requirement(str(text))
        except InvalidRequirement:
            continue  # uv says so
        if canonicalize_name(wanted.name) == "sparkfleet" and not wanted.specifier.contains(ours, prereleases=True):
            return f"wants sparkfleet{wanted.specifier}, and this is {ours}: say `uv run sparkfleet`, which takes it"
    return ""


def chosen_fleet_file(named: Path | None) -> Path | None:
    """The fleet file that was named, else `$FLEET`'s, else that of the project in the current folder.

    Raises:
        FleetError: the project's pyproject.toml has mistakes.
    """
    if path := named_fleet_file(named):
        return path
    project = project_in(Path.cwd())
    return project.fleet_file if project else None
