"""Questions to the person at the terminal."""

from __future__ import annotations

from sparkfleet.enrol.hostkey import HostKey, normal_fingerprint
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.terminal import has_terminal


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
