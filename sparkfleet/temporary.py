"""A temporary directory, or one line that says why there is none."""

from __future__ import annotations

import tempfile

from sparkfleet.exit_codes import CommandFailed


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    """As tempfile's. Raises CommandFailed where no directory can be written to, as on a full disk."""
    try:
        return tempfile.TemporaryDirectory(prefix="sparkfleet-")
    except OSError as error:
        raise CommandFailed(
            f"no temporary directory: {error.strerror or error}: free some space there, or set TMPDIR to another one"
        ) from error
