"""A command with placeholders: `{batch}` and whatever else is varied or set."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence

from sparkhost.base.units import Mistake

NAME = re.compile(r"[a-z][a-z0-9_]*")
MOST = 1 << 20


def parse_vary(text: str) -> tuple[str, list[int]]:
    """`batch=1:64` doubles from 1 up to 64; `batch=1,2,3` are just these.

    Raises:
        Mistake: neither of them, or not rising.
    """
    name, equals, values = text.partition("=")
    try:
        if not equals or not NAME.fullmatch(name):
            raise ValueError
        if ":" in values:
            first, last = (int(part) for part in values.split(":"))
            found = [first]
            while 0 < found[-1] * 2 <= last:
                found.append(found[-1] * 2)
        else:
            found = [int(part) for part in values.split(",")]
        if found != sorted(set(found)) or not 0 < found[0] <= found[-1] <= MOST:
            raise ValueError
    except ValueError:
        raise Mistake(f"--vary: got {text!r}, expected batch=1:64 (doubling) or batch=1,2,4 (rising)") from None
    return name, found


def parse_set(text: str) -> tuple[str, str]:
    """`length=1024`.

    Raises:
        Mistake: no name in front of it.
    """
    name, equals, value = text.partition("=")
    if not equals or not NAME.fullmatch(name):
        raise Mistake(f"--set: got {text!r}, expected NAME=VALUE, such as length=1024")
    return name, value


def fill(template: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The command with its placeholders replaced. Other braces stay: arguments may be JSON."""
    place = re.compile("|".join(rf"{{{re.escape(name)}}}" for name in values))
    return [place.sub(lambda match: values[match[0][1:-1]], word) for word in template]


def check(template: Sequence[str], names: Sequence[str]) -> None:
    """Every name must have a place in the command: else a series would measure the same run again and again.

    Raises:
        Mistake: the command is missing, is quoted as one word, or has no place for a name.
    """
    if not template:
        raise Mistake("a command is missing: spark-profile [OPTIONS] -- COMMAND with {batch}, or --recipe NAME")
    if len(template[0].split()) > 1 and shutil.which(template[0]) is None:
        raise Mistake(f"{template[0]!r} is one word with blanks: leave the quotes around the command out")
    for name in names:
        if not any(f"{{{name}}}" in word for word in template):
            raise Mistake(f"the command has no {{{name}}}: say where the value goes")
