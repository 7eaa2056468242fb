"""Tells somebody that verdicts got worse, through a program of the site's own: mail, a webhook, a pager."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import time
from contextlib import suppress

from sparkfleet.audit.diff import Diff, summary
from sparkfleet.audit.report import diff_text
from sparkfleet.audit.text import cut, visible
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.sudo_password import PASSWORD_COMMAND

SECONDS = 60.0
SUMMARY = "SPARKFLEET_AUDIT_SUMMARY"
"""The hook's variable with one line of printable text, fit for a mail's subject."""
RUN = "SPARKFLEET_AUDIT_RUN"
"""The hook's variable with the new run's id."""
_TAIL = 4096
MOST = 16 * 2**20
"""Bytes that a hook may print: it fills a temporary file of ours."""
_LOOK = 0.05
"""Seconds between looks at the size of that file."""


class _TooLong(Exception):
    """The hook printed more than MOST."""


def parsed(hook: str) -> list[str]:
    """The words of a hook's command line, as a shell would split them; no shell runs it.

    Raises:
        CommandFailed: it has no words, or a quote does not end.
    """
    try:
        words = shlex.split(hook)
    except ValueError as error:
        raise CommandFailed(f"--hook: got {hook!r}: {error}", ExitCode.BAD_CONFIGURATION) from error
    if not words:
        raise CommandFailed("--hook: got nothing, expected a command", ExitCode.BAD_CONFIGURATION)
    return words


def notify(found: Diff, hook: str, *, seconds: float = SECONDS) -> bool:
    """Runs the hook if verdicts got worse. Returns whether it ran.

    It gets the difference as JSON on standard input, and in its environment `SPARKFLEET_AUDIT_SUMMARY` and
    `SPARKFLEET_AUDIT_RUN`. Nothing that a host said is in an argument. After `seconds`, or MOST bytes of output, it is
    ended, with whatever it has started.

    Raises:
        CommandFailed: it cannot be started, failed, took too long, or said too much; one line, exit code 1
            (4: no such program).
    """
    if not found.worse:
        return False
    words = parsed(hook)
    environment = {key: value for key, value in os.environ.items() if key != PASSWORD_COMMAND}
    environment |= {SUMMARY: _utf8(summary(found)), RUN: visible(found.new)}
    # A file, not a pipe: what the hook leaves running may keep a pipe open for ever, or fill it.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as document:
        document.write(diff_text.dumps(found).encode("ascii"))
        document.seek(0)
        try:
            process = subprocess.Popen(
                words, stdin=document, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            text = f"hook {_name(words)}: cannot be started: {reason}: name a program that can be run"
            raise CommandFailed(text, ExitCode.BAD_CONFIGURATION) from error
        try:
            rc = _wait(process, output.fileno(), seconds)
        except _TooLong as error:
            _end(process)
            text = f"hook {_name(words)}: says more than {MOST // 2**20} MiB, it was ended: nobody may have been told"
            raise CommandFailed(text) from error
        except subprocess.TimeoutExpired as error:
            _end(process)
            text = f"hook {_name(words)}: no end within {seconds:g} s, it was ended: nobody may have been told"
            raise CommandFailed(text) from error
        except BaseException:
            _end(process)
            raise
        if rc:
            said = f"killed by signal {-rc}" if rc < 0 else f"ended with {rc}"
            raise CommandFailed(f"hook {_name(words)}: {said}: {_last_line(output.fileno())}")
    return True


def _wait(process: subprocess.Popen[bytes], output: int, seconds: float) -> int:
    """The exit status of the hook. Raises _TooLong or subprocess.TimeoutExpired; it still runs then."""
    until = time.monotonic() + seconds
    while True:
        try:
            return process.wait(_LOOK)
        except subprocess.TimeoutExpired:
            if os.fstat(output).st_size > MOST:
                raise _TooLong from None
            if time.monotonic() > until:
                raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the hook with all that it has started. One that has become another user's (sudo) is left to itself."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)


def _name(words: list[str]) -> str:
    return visible(cut(words[0], 80)[0])


def _utf8(text: str) -> str:
    # A lone surrogate was made visible before; this is what an environment variable can hold at all.
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def _last_line(output: int) -> str:
    size = os.fstat(output).st_size
    tail = os.pread(output, _TAIL, max(size - _TAIL, 0)).decode(errors="replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return visible(cut(lines[-1], 200)[0]) if lines else "it said nothing"
