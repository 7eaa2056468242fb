"""What a deploy would change on a host: the project's own dry run, as an admin would start it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparkfleet.deploy.outcome import Outcome
from sparkfleet.deploy.run import Wanted, run
from sparkfleet.sudo_password import PASSWORD_COMMAND
from sparkfleet.temporary import temporary_directory

SECONDS = 900.0


def preview(fleet_file: Path, name: str, password: str | None) -> Outcome:
    """A dry run of this host with this fleet file. Changes nothing. Raises CommandFailed where it cannot be started."""
    with handed_on(password) as reader:
        environment = {PASSWORD_COMMAND: reader} if reader else {}
        wanted = Wanted([name], fleet_file, dry=True, diff=True, environment=environment, seconds=SECONDS)
        (found,) = run(wanted, quiet=True)
    return found


@contextmanager
def handed_on(password: str | None) -> Iterator[str | None]:
    """A command that prints the password, once, to a process of ours; it lies in a pipe, not in a file or argument."""
    if password is None:
        yield None
        return
    with temporary_directory() as folder:
        pipe = Path(folder) / "password"
        os.mkfifo(pipe, 0o600)
        # Both ends, so that neither opening nor writing waits for a reader, who may never come.
        descriptor = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{password}\n".encode())
            yield f"head -n 1 {pipe}"
        finally:
            os.close(descriptor)
