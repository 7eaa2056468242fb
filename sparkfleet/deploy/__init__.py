"""`sparkfleet deploy` and `sparkfleet drift`: pyinfra's run, with an outcome for every host and exit codes that hold.

pyinfra does the work; it is started as its users start it. Nothing here imports it, nor `tasks/`.
"""

from typing import Any

from sparkfleet.deploy import command, remove


def add_arguments(commands: Any) -> None:
    """Adds `deploy`, `drift` and `remove`."""
    command.add_arguments(commands)
    remove.add_arguments(commands)


__all__ = ["add_arguments"]
