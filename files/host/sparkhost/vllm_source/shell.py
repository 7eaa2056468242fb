"""Runs the commands of a build: foreign code, as an account that owns nothing but the build."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

MOST_REMEMBERED = 200
LONGEST_NOTE = 300
# What compilers, linkers, Python and git say first; and what those who have called them make of it.
CAUSE = re.compile(r"(\berror: |Error: |^fatal: |undefined reference|: No such file|Killed)")
CONSEQUENCE = re.compile(r"\b(error|failed|not found|killed)\b", re.IGNORECASE)


class StepFailed(Exception):
    """A step that did not work. One line, with the remedy where one is known."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Shell:
    """Runs commands; what they print goes to the log and to the journal."""

    log: BinaryIO
    environment: dict[str, str]
    """Of every command. Nothing is inherited from who starts a build."""
    account: pwd.struct_passwd | None = None
    """Who runs them; None: whoever runs this."""
    last: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_REMEMBERED))
    """The last lines that the running command has printed."""

    def run(
        self, *words: str | Path, cwd: Path | None = None, more: Mapping[str, str] | None = None, text: str = ""
    ) -> None:
        """Runs a command, with `text` as its input.

        Raises:
            StepFailed: exit status other than 0; with the line that tells most.
        """
        name = Path(words[0]).name
        self.say(f"+ {' '.join(map(str, words))}")
        self.last.clear()
        with self.started(*words, cwd=cwd, more=more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            reader = threading.Thread(target=self._copy, args=(process.stdout,), daemon=True)
            reader.start()
            try:
                if process.stdin:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.write(text.encode())
                        process.stdin.close()
                status = process.wait()
            finally:
                end(process)  # nothing that it has left behind goes on
                reader.join(timeout=10)
        if status:
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise StepFailed(f"{name}: {how}: {self.telling()}", status)

    def output(self, *words: str | Path, cwd: Path | None = None) -> str:
        """What a short command prints on its standard output. Raises StepFailed."""
        with self.started(*words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                out, error = process.communicate(timeout=600)
            except subprocess.TimeoutExpired as late:
                raise StepFailed(f"{Path(words[0]).name} did not end within 600 s") from late
            finally:
                end(process)
        if process.returncode:
            lines = [line.strip() for line in error.decode(errors="replace").splitlines() if line.strip()]
            raise StepFailed(f"{Path(words[0]).name}: {one_line((lines or ['no message'])[-1])}", process.returncode)
        return out.decode(errors="replace")

    def started(
        self, *words: str | Path, cwd: Path | None, more: Mapping[str, str] | None = None, **to: Any
    ) -> subprocess.Popen[bytes]:
        """A process of the build's account, in a session of its own."""
        who: dict[str, Any] = {}
        if self.account is not None:
            who = {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE,
            cwd=cwd or "/",
            env={**self.environment, **(more or {})},
            umask=0o022,
            start_new_session=True,
            **who,
            **to,
        )
        return process

    def write(self, path: Path, text: str) -> None:
        """Writes a file of the build as its account: root follows no link that foreign code has put there."""
        self.run("/bin/sh", "-c", 'rm -f -- "$1" && cat > "$1"', "sh", path, text=text)

    def say(self, line: str) -> None:
        self.log.write(f"{line}\n".encode())
        self.log.flush()
        print(line, flush=True)

    def telling(self) -> str:
        """Of the last lines the one that says most: the first cause, else the last consequence, else the last."""
        lines = [line for line in self.last if line.strip()] or ["no message"]
        causes = [line for line in lines if CAUSE.search(line)]
        consequences = [line for line in lines if CONSEQUENCE.search(line)]
        return one_line((causes[:1] or consequences[-1:] or lines[-1:])[0])

    def _copy(self, stream: BinaryIO) -> None:
        for data in stream:
            self.log.write(data)
            self.log.flush()
            line = data.decode(errors="replace").rstrip("\n")
            self.last.append(line)
            with contextlib.suppress(OSError):  # the journal may be gone; the log is what counts
                sys.stdout.write(line + "\n")
                sys.stdout.flush()


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a command with all of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def any_text() -> None:
    """Has this process print whatever compilers say, in every locale of its caller's."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST_NOTE else line[: LONGEST_NOTE - 1] + "…"
