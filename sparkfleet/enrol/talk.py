"""Questions to the person at the terminal, and the sudo password, which is kept in this process's memory only."""

from __future__ import annotations

import os
import shlex
import subprocess
from getpass import getpass

from sparkfleet.enrol.hostkey import HostKey, normal_fingerprint
from sparkfleet.enrol.ssh import has_terminal, terminal_kept
from sparkfleet.exit_codes import CommandFailed, ExitCode

PASSWORD_COMMAND = "SPARKFLEET_SUDO_PASSWORD_COMMAND"


def say(name: str, text: str) -> None:
    """A line about a host."""
    print(f"{name}: {text}", flush=True)


def confirm_host_key(name: str, key: HostKey) -> None:
    """Asks whether the key is the host's: `yes`, or its fingerprint, which is compared.

    Raises:
        CommandFailed: it is not, or there is nobody to ask.
    """
    if not has_terminal():
        raise CommandFailed(
            f"{name}: its key is not pinned, and there is no terminal to ask on: read the fingerprint at its console "
            f"(ssh-keygen -lf {key.file}) and give it with --fingerprint",
            ExitCode.BAD_CONFIGURATION,
        )
    while True:
        answer = ask("Is it the same? (yes, no, or the fingerprint as you read it there) ")
        if answer.lower() == "yes":
            return
        if answer.lower() in ("", "n", "no"):
            raise CommandFailed(f"{name}: the host key was not confirmed: nothing was changed")
        try:
            given = normal_fingerprint(answer)
        except ValueError:
            continue
        compare(name, key, given)
        return


def compare(name: str, key: HostKey, given: str) -> None:
    """Raises CommandFailed where the host's key does not have this fingerprint."""
    if key.fingerprint != given:
        raise CommandFailed(
            f"{name}: the host offers the {key.kind} key {key.fingerprint}, not {given}: nothing was changed. Read it "
            f"again at its console (ssh-keygen -lf {key.file}); if it still differs, somebody stands in between",
            ExitCode.UNREACHABLE,
        )


def confirm_install(name: str, what: str) -> None:
    """Asks before a key that the admin has not named goes to the host. Raises CommandFailed where it shall not."""
    if not has_terminal():
        raise CommandFailed(
            f"{name}: no key of yours logs in; name the one to install with --key, or give --yes for {what}",
            ExitCode.BAD_CONFIGURATION,
        )
    if ask(f"Install your key {what} there? [Y/n] ").lower() not in ("", "y", "yes"):
        raise CommandFailed(f"{name}: no key was installed: name another with --key")


def ask(question: str) -> str:
    """The answer to a question; empty at the end of the input."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return ""


def sudo_password(name: str) -> str:
    """The sudo password, from `$SPARKFLEET_SUDO_PASSWORD_COMMAND` (its first line of output) or a prompt.

    Raises:
        CommandFailed: the command failed, or there is no terminal to ask on.
    """
    command = os.environ.get(PASSWORD_COMMAND)
    if command:
        try:
            output = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, check=True, text=True).stdout
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise CommandFailed(f"${PASSWORD_COMMAND} failed: {error}", ExitCode.BAD_CONFIGURATION) from error
        return output.partition("\n")[0]
    if not has_terminal():
        raise CommandFailed(
            f"{name}: sudo wants a password and there is no terminal to ask on: set ${PASSWORD_COMMAND} to a command "
            "that prints it",
            ExitCode.BAD_CONFIGURATION,
        )
    try:
        with terminal_kept():
            return getpass(f"sudo password on {name}: ")
    except EOFError as error:
        raise CommandFailed(f"{name}: no sudo password was given") from error
