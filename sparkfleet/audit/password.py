"""The admin's sudo password for an audit: got once, only if a host wants it, kept in this process's memory."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from getpass import getpass

from sparkfleet.enrol.ssh import has_terminal
from sparkfleet.enrol.talk import PASSWORD_COMMAND


class SudoPassword:
    """For every host of one audit. `problem`: why there is none, one line with the remedy."""

    def __init__(self) -> None:
        self.problem = ""
        self._lock = threading.Lock()
        self._password: str | None = None

    def get(self) -> str:
        """The password, from `$SPARKFLEET_SUDO_PASSWORD_COMMAND` (its first line of output), else from the terminal.

        "" where it cannot be had: the host then says what it lacks, and `problem` why.
        """
        with self._lock:
            if self._password is None:
                self._password = self._from_command() if os.environ.get(PASSWORD_COMMAND) else self._from_terminal()
            return self._password

    def _from_command(self) -> str:
        try:
            words = shlex.split(os.environ[PASSWORD_COMMAND])
            output = subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=120).stdout
            return output.decode().partition("\n")[0]
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.problem = f"${PASSWORD_COMMAND} failed: {' '.join(str(error).split())}"
            return ""

    def _from_terminal(self) -> str:
        if not has_terminal():
            self.problem = f"set ${PASSWORD_COMMAND} to a command that prints it"
            return ""
        try:
            return getpass("sudo password (for every host that wants one): ")
        except (EOFError, OSError):
            self.problem = "no sudo password was given"
            return ""
