"""The admin's sudo password for an audit: got once, and only if a host wants it."""

from __future__ import annotations

import threading

from sparkfleet.sudo_password import NoSudoPassword, sudo_password


class SudoPassword:
    """For every host of one audit. `problem`: why there is none, one line with the remedy."""

    def __init__(self) -> None:
        self.problem = ""
        self._lock = threading.Lock()
        self._password: str | None = None

    def get(self) -> str:
        """The password, or "" where it cannot be had: the host then says what it lacks, and `problem` why."""
        with self._lock:
            if self._password is None:
                try:
                    self._password = sudo_password("(for every host that wants one)")
                except NoSudoPassword as problem:
                    self.problem, self._password = str(problem), ""
            return self._password
