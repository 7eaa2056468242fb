"""Reads what ansible-core sends with pipelining: shell commands, and modules as Python programs on standard input."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

# A module's program ends in a call with these (ansible-core 2.19).
CALL = re.compile(rb"^(module_fqn|params)=(.*),$", re.MULTILINE)
TEMPORARY = re.compile(r"ansible-tmp-[0-9.]+-[0-9]+-[0-9]+")
# Differs from run to run and from host to host, and changes no answer.
OF_THE_RUN = re.compile(r"_ansible_(?!check_mode|diff)\w+")


def module_of(given: bytes) -> str | None:
    """One line that names a module with its arguments, the same in every run; None: the input is no module.

    Raises:
        ValueError: it looks like one, and cannot be read: another release of ansible-core.
    """
    if b"_ANSIBALLZ_WRAPPER" not in given[:200]:
        return None
    found = {name: ast.literal_eval(value.decode()) for name, value in CALL.findall(given)}
    if found.keys() != {b"module_fqn", b"params"}:
        raise ValueError("a module in an unknown form: the bench is written for ansible-core 2.19")
    arguments = json.loads(found[b"params"])["ANSIBLE_MODULE_ARGS"]
    return f"{found[b'module_fqn']} {json.dumps(steady(arguments), sort_keys=True)}"


def steady(arguments: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run."""
    kept = {key: value for key, value in arguments.items() if not OF_THE_RUN.fullmatch(key)}
    return dict(json.loads(TEMPORARY.sub("ansible-tmp", json.dumps(kept))))


def shell_answer(command: str, home: str) -> str | None:
    """What the shell commands print that Ansible sends around modules; None: it is none of those."""
    if "echo ~" in command and "mkdir" not in command:
        return f"{home}\n"
    if "mkdir -p" in command and (match := TEMPORARY.search(command)):
        return f"{match[0]}={home}/.ansible/tmp/{match[0]}\n"
    return None
