"""The exit codes of every command (docs/exit-codes.md), and the error that ends a command with one of them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's end means; 130 (128 + SIGINT) after Ctrl-C."""

    CLEAN = 0
    FAILURE = 1
    DRIFT = 2
    UNREACHABLE = 3
    BAD_CONFIGURATION = 4
    INTERRUPTED = 130


class CommandFailed(Exception):
    """Ends a command: one line for the person who called it, with the remedy, and the exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.code = code
