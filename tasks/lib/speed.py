"""What pyinfra does again for every operation of every host, done once or more cheaply. docs/upstream-pyinfra.md, 8.

Two functions of pyinfra 3.10 are replaced, with the same results (tests/unit/test_speed.py compares them). They are
half of what the controller computes on a converged host. `SPARKFLEET_STOCK_SPEED=1` leaves pyinfra as it is.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from importlib.metadata import version
from types import FrameType

import pyinfra
from pyinfra.api import arguments, facts
from pyinfra.api.state import State
from pyinfra.api.util import PYINFRA_INSTALL_DIR


def operation_order(state: State) -> list[int]:
    """As `pyinfra.api.util.get_operation_order_from_stack`: the lines of the call stack, from the deploy file on.

    That one takes `inspect.stack()` and `inspect.getframeinfo()` of each frame, which look for the source file of
    each through all loaded modules, and read it. Only name and line are used, and a frame has both.
    """
    frames: list[tuple[str, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    frames.reverse()
    first = 0
    if state.current_deploy_filename:
        names = [name for name, _ in frames]
        # Where the deploy file is not on the stack, stock pyinfra is left with its own frame, which it does not count.
        first = names.index(state.current_deploy_filename) if state.current_deploy_filename in names else len(names)
    lines = [line for name, line in frames[first:] if not name.startswith(PYINFRA_INSTALL_DIR)]
    return [state.current_op_file_number, *lines] if pyinfra.is_cli else lines


def install() -> None:
    """Replaces them; once, from `config.py`. Nothing with another pyinfra: it is slower then, and right."""
    if os.environ.get("SPARKFLEET_STOCK_SPEED") == "1" or not version("pyinfra").startswith("3.10."):
        return
    # The package has a function `operation` that hides the module.
    setattr(import_module("pyinfra.api.operation"), "get_operation_order_from_stack", operation_order)  # noqa: B010 - mypy: replaced on purpose
    # The type hints of its own arguments never change, and are evaluated from text for each operation.
    hints = functools.cache(arguments.all_global_arguments)
    for module in (arguments, facts):
        setattr(module, "all_global_arguments", hints)  # noqa: B010
