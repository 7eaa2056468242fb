"""`sparkfleet init`: writes a site's project, for one fleet."""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings.problems import escaped
from sparkfleet.version import release

DESCRIPTION = """\
Writes a project for your fleet into a new folder: fleet file, deploy.py with a place for measures of your own, the
version of sparkfleet that it uses, and an example for CI. Nothing is sent anywhere."""
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,60}[A-Za-z0-9])?")
NAMED = {"gitignore": ".gitignore", "project.toml": "pyproject.toml"}
"""Not by their names here: tools would take them for those of this folder."""


def add_arguments(commands: Any) -> None:
    """Adds the subcommand `init`."""
    parser = commands.add_parser("init", help="write a project for your fleet", description=DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that does not exist yet, such as my-lab")
    parser.set_defaults(run=init)


def init(arguments: argparse.Namespace) -> ExitCode:
    """Writes the project, whole or not at all. Raises CommandFailed."""
    folder: Path = arguments.folder.expanduser()
    shown = escaped(str(folder))
    if not NAME.fullmatch(folder.name):
        text = f"{shown}: a project's name has letters, digits, `-`, `_` and `.`, as in my-lab"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
    if folder.exists() or folder.is_symlink():
        raise CommandFailed(f"{shown}: is there already: name a folder that is not", ExitCode.BAD_CONFIGURATION)
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    except OSError as error:
        text = f"{shown}: cannot be made: {error.strerror}"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION) from error
    try:
        write(files("sparkfleet.site") / "template", made, {"@NAME@": folder.name, "@VERSION@": release()})
        made.chmod(0o755)
        made.rename(folder)
    except OSError as error:
        raise CommandFailed(f"{shown}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    print(
        f"{shown}: a project for your fleet. Go on there:\n"
        f"  cd {shown}\n"
        "  git init && uv lock\n"
        "  uv run sparkfleet enrol spark1 --address ADDRESS"
    )
    return ExitCode.CLEAN


def write(source: Traversable, target: Path, values: dict[str, str]) -> None:
    """Copies a folder, with these values in the place of their names. Raises OSError."""
    target.mkdir(exist_ok=True)
    for item in source.iterdir():
        to = target / NAMED.get(item.name, item.name)
        if item.is_dir():
            if item.name != "__pycache__":
                write(item, to, values)
            continue
        text = item.read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(name, value)
        to.write_text(text, encoding="utf-8")
