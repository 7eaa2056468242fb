"""The one error a lab user sees."""

from __future__ import annotations


class LabError(Exception):
    """Something a person can act on: printed as one line, without a traceback.

    `status` is the exit status of the command line (4: a needed tool is missing and cannot be installed).
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
