"""Environment variables that every consumer reads the same.

A variable of the site goes through sh and zsh profiles, systemd's environment.d, pam_env and crontabs. Each has its
own quoting, so a value is limited to what comes out unchanged of all of them.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from sparkfleet.settings.problems import wrong
from sparkfleet.settings.values import Means

OWNED = (
    "CUDA_HOME",
    "PATH",
    "LD_LIBRARY_PATH",
    "TORCH_CUDA_ARCH_LIST",
    "TRITON_PTXAS_PATH",
    "TRITON_PTXAS_BLACKWELL_PATH",
)
"""What the measure cuda_env sets from its other settings."""

OF_THE_LOGIN = ("HOME", "USER", "LOGNAME", "SHELL", "PWD", "TERM", "IFS", "XDG_RUNTIME_DIR")
"""What each login sets itself; the same value for every user breaks it."""

# cron keeps 1000 bytes of a line (MAX_ENVSTR), older versions of pam_env 1024.
LONGEST_ENTRY = 900

SPECIAL = {
    '"': "the consumers differ in what they make of quotes",
    "'": "the consumers differ in what they make of quotes",
    "\\": "environment.d and pam_env drop or keep a backslash differently",
    "$": "environment.d and pam_env would expand it",
    "`": "a shell would run it",
    "#": "pam_env cuts the value there",
}


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
        raise wrong("a variable name of letters, digits and underscores")
    if name in OWNED:
        raise wrong("a variable that the measure does not set itself: use its other settings")
    if name in OF_THE_LOGIN:
        raise wrong("a variable that is not set by each login itself")
    return name


def _value(value: str) -> str:
    if not value:
        raise wrong("a value that is not empty: pam_env would unset the variable")
    if not (value.isascii() and value.isprintable()):
        raise wrong("one line of printable ASCII: the consumers differ in what they make of the rest")
    if value != value.strip():
        raise wrong("no space at either end: cron and pam_env drop it")
    for char, reason in SPECIAL.items():
        if char in value:
            raise wrong(f"no {char} in it: {reason}")
    if "@{" in value:
        raise wrong("no @{ in it: pam_env would expand it")
    return value


def _short(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if len(name) + len(value) > LONGEST_ENTRY:
            raise wrong(
                f"at most {LONGEST_ENTRY} characters with its name: cron and pam_env cut longer lines", at=(name,)
            )
    return variables


Name = Annotated[str, AfterValidator(_name), Means("variable name")]
Value = Annotated[str, AfterValidator(_value), Means("text")]
Variables = Annotated[dict[Name, Value], AfterValidator(_short)]
