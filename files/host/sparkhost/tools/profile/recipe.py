"""Ready recipes: a TOML file with a command, what is varied, and what is set."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

from sparkhost.base.units import Mistake

DIRECTORY = Path("/opt/sparkfleet/share/recipes")
KEYS = {"about", "checked", "command", "vary", "set", "environment"}


class Recipe(NamedTuple):
    """`settings`: placeholders with a value that --set replaces; `environment`: variables, which may have them too."""

    about: str
    checked: str
    """What its command line was checked against: a repository and a commit; "" for none."""
    template: list[str]
    vary: str
    settings: dict[str, str]
    environment: dict[str, str]


def names(directory: Path = DIRECTORY) -> list[str]:
    return sorted(path.stem for path in directory.glob("*.toml"))


def read(word: str, directory: Path = DIRECTORY) -> Recipe:
    """The recipe of a name, or in a file (a word with a slash or `.toml`).

    `{recipes}` in its command is its directory, `{python}` this interpreter.

    Raises:
        Mistake: there is none, or it is wrong; with file and key.
    """
    path = Path(word) if "/" in word or word.endswith(".toml") else directory / f"{word}.toml"
    try:
        value = tomllib.loads(path.read_text())
    except OSError as error:
        known = ", ".join(names(directory)) or "none is installed"
        raise Mistake(f"--recipe: {path}: {error.strerror}; there are: {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mistake(f"--recipe: {path}: is no TOML: {error}") from error
    for key in value:
        if key not in KEYS:
            raise Mistake(f"--recipe: {path}: {key}: unknown key, expected {', '.join(sorted(KEYS))}")
    command, settings, environment = value.get("command"), value.get("set", {}), value.get("environment", {})
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise Mistake(f"--recipe: {path}: command: expected a list of words")
    if not isinstance(settings, dict) or not all(isinstance(item, (str, int)) for item in settings.values()):
        raise Mistake(f"--recipe: {path}: set: expected a table of texts and numbers")
    if not isinstance(environment, dict) or not all(isinstance(item, str) for item in environment.values()):
        raise Mistake(f"--recipe: {path}: environment: expected a table of texts")
    fixed = {"recipes": str(path.resolve().parent), "python": sys.executable}
    used = {name: text for name, text in fixed.items() if any(f"{{{name}}}" in word for word in command)}
    return Recipe(
        about=str(value.get("about", "")),
        checked=str(value.get("checked", "")),
        template=command,
        vary=str(value.get("vary", "batch=1:256")),
        settings={**{name: str(item) for name, item in settings.items()}, **used},
        environment=environment,
    )
