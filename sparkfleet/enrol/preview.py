"""What a deploy would change on a host: the project's own dry run, as an admin would start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkfleet.sudo_password import PASSWORD_COMMAND

PROJECT = Path(__file__).resolve().parents[2]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OURS = re.compile(r"(?!Ready: )\w+: |  ")
"""A line of a measure, or of the diff below it; the others are pyinfra's own, such as `Ready: deploy.py`."""
SECONDS = 900.0


@dataclass(frozen=True)
class Preview:
    """What the dry run said about the host."""

    ok: bool
    lines: tuple[str, ...]
    """What would change, or, where it failed, the end of its output."""


def preview(fleet_file: Path, name: str, password: str | None) -> Preview:
    """Runs `pyinfra inventory.py deploy.py --dry --diff --limit NAME` with this fleet file. Changes nothing."""
    if not (PROJECT / "deploy.py").exists():
        return Preview(False, (f"there is no deploy.py in {PROJECT}: run the dry run from a checkout of the project",))
    command = [sys.executable, "-m", "pyinfra", "inventory.py", "deploy.py", "--dry", "--diff", "--limit", name]
    environment = {**os.environ, "FLEET": str(fleet_file.absolute()), "PYINFRA_PROGRESS": "off"}
    with handed_on(password) as reader:
        if reader:
            environment[PASSWORD_COMMAND] = reader
        try:
            done = subprocess.run(
                command,
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Preview(False, (f"no end within {SECONDS:g} s",))
    return read(name, done.returncode, done.stdout.decode(errors="replace"))


def read(name: str, rc: int, output: str) -> Preview:
    """The lines about the host. A dry run that says nothing about it has failed, whatever its exit code is."""
    text = ESCAPE.sub("", output)
    about = re.findall(rf"^\s*\[{re.escape(name)}\] (.*)$", text, re.MULTILINE)
    if rc or not about:
        said = [line.strip() for line in text.splitlines() if line.strip()]
        return Preview(False, tuple(about or said[-3:] or [f"it ended with {rc} and said nothing"]))
    return Preview(True, tuple(line.rstrip() for line in about if OURS.match(line)))


@contextmanager
def handed_on(password: str | None) -> Iterator[str | None]:
    """A command that prints the password, once, to a process of ours; it lies in a pipe, not in a file or argument."""
    if password is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sparkfleet-") as folder:
        pipe = Path(folder) / "password"
        os.mkfifo(pipe, 0o600)
        # Both ends, so that neither opening nor writing waits for a reader, who may never come.
        descriptor = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{password}\n".encode())
            yield f"head -n 1 {pipe}"
        finally:
            os.close(descriptor)
