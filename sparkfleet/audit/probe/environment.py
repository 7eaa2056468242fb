"""Environments as sessions get them: only the variables that are asked for, since others may hold secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparkfleet.audit.probe.look import Parameters, Seen, run

ENV = ("/usr/bin/env", "-0")
MARK = "variables of "
"""Begins what a session says; a shell's greeting before it is left out."""


def shown(variables: Mapping[str, str], names: Sequence[str]) -> str:
    """`NAME=value` lines, sorted; the number of all variables first, so that nothing set is not nothing seen."""
    lines = [f"{name}={variables[name]}" for name in sorted(names) if name in variables]
    return "\n".join([f"{len(variables)} variables", *(line.replace("\n", "\\n") for line in lines)]) + "\n"


def parsed(output: str) -> dict[str, str]:
    """What `env -0` printed. A shell's greeting, which ends in no NUL, is in front of the first name: cut there."""
    found = {}
    for entry in output.split("\0")[:-1]:
        name, _, value = entry.partition("=")
        found[name.rpartition("\n")[2]] = value
    return found


def session(words: Sequence[str], parameters: Parameters, env: Mapping[str, str] | None, command: str) -> Seen:
    """The environment of a kind of session; `words` run `env -0` in it, `command` is how a person would."""
    answer = run(words, env=env, shown=command)
    if answer.rc:
        return answer
    variables = parsed(answer.output)
    if not variables:
        return Seen(command, "", 1, "no environment was printed")
    return Seen(command, shown(variables, parameters["names"]))
