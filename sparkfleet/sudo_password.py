"""The admin's sudo password: from a command or a prompt, kept in this process's memory only.

Every command gets it here: deploys, audits and enrolments ask in the same way, and fail with the same words.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from getpass import getpass

from sparkfleet import child
from sparkfleet.terminal import has_terminal, terminal_kept

PASSWORD_COMMAND = "SPARKFLEET_SUDO_PASSWORD_COMMAND"
# Seconds; a password manager may have to be unlocked first.
COMMAND_TIMEOUT = 120


class NoSudoPassword(Exception):
    """Why there is no password: one line, with the remedy."""


def sudo_password(whose: str) -> str:
    """The password, from `$SPARKFLEET_SUDO_PASSWORD_COMMAND` (its first line of output), else from the terminal.

    `whose`: completes the prompt "sudo password ...".

    Raises:
        NoSudoPassword: the command failed, there is no terminal to ask on, or nothing was given.
    """
    command = os.environ.get(PASSWORD_COMMAND)
    if command:
        return printed_by(command)
    if not has_terminal():
        raise NoSudoPassword(
            f"sudo wants a password and there is no terminal to ask on: set ${PASSWORD_COMMAND} to a command that "
            "prints it"
        )
    try:
        with terminal_kept():
            return getpass(f"sudo password {whose}: ")
    except (EOFError, OSError) as error:
        raise NoSudoPassword("no sudo password was given") from error


def printed_by(command: str) -> str:
    try:
        words = shlex.split(command)
        if not words:
            raise ValueError("it is blank")
        # It may ask a person (a password manager that is locked), so it keeps the terminal, and its own words go there.
        done = child.run(words, child.Limits(COMMAND_TIMEOUT), terminal=True, stdin=None, stderr=None)
        if done.rc:
            raise subprocess.CalledProcessError(done.rc, words)
        return done.stdout.decode().partition("\n")[0]
    except (OSError, ValueError, subprocess.SubprocessError, child.OutOfBounds) as error:
        raise NoSudoPassword(f"${PASSWORD_COMMAND} failed: {' '.join(str(error).split())}") from error
