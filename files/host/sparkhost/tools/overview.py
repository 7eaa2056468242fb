"""The command `spark`: which programs there are on this host, and what each answers."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from typing import NamedTuple

from sparkhost.base.pipes import quiet_without_reader

PROGRAM = "spark"
EPILOG = """\
Each has --help, with examples and exit codes. What is not on this host is named at the end.
Exit code: 0, 2 a mistake on the command line.

examples:
  spark
  spark --json"""


class Command(NamedTuple):
    """`measure`: what puts it on a host; `answers`: in a few words."""

    name: str
    measure: str
    answers: str


COMMANDS = (
    Command("spark-run", "training_slice", "starts a job in a capped slice; ps, logs, stop, wait, clean"),
    Command("spark-top", "training_slice", "who holds the memory now?"),
    Command("spark-preflight", "training_slice", "is there the memory for the next run?"),
    Command("spark-why", "watchdog", "why did the watchdog end my work?"),
    Command("spark-estimate", "tools", "what will this run need, and which batch fits?"),
    Command("spark-profile", "tools", "what does it really need?"),
    Command("spark-doctor", "tools", "what is wrong, and what do I do?"),
    Command("spark-field-report", "tools", "is this Spark as we think? For issues"),
    Command("spark-python", "stack", "Python with the tested stack: torch, vLLM, transformers"),
    Command("spark-stack", "stack", "which stack is installed, and does it work?"),
    Command("spark-vllm", "vllm_container", "does the vLLM server in its container answer?"),
    Command("spark-vllm-python", "vllm_source", "Python with the vLLM that was built here"),
    Command("spark-vllm-source", "vllm_source", "which build of vLLM is in use, and how did it go?"),
)


def lines() -> list[str]:
    """For a person: what is here, then what is not."""
    width = max(len(command.name) for command in COMMANDS)
    here = [command for command in COMMANDS if shutil.which(command.name)]
    found = [f"{command.name:{width}}  {command.answers}" for command in here]
    absent = [f"{command.name} ({command.measure})" for command in COMMANDS if command not in here]
    if absent:
        found += [f"not on this host, with the measure that brings it: {', '.join(absent)}"]
    return found


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the list."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Which programs of sparkfleet this host has, and what each answers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    if parser.parse_args(arguments).json:
        known = [{**command._asdict(), "path": shutil.which(command.name)} for command in COMMANDS]
        print(json.dumps({"version": 1, "commands": known}, indent=2))
    else:
        print("\n".join(lines()))
    return 0
