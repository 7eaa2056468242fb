"""Files that commands of ours keep on the controller: where they are, and how one is replaced."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def state_folder(kind: str) -> Path:
    """`$XDG_STATE_HOME/sparkfleet/KIND`; as its specification has it, a relative path there counts as none."""
    named = os.environ.get("XDG_STATE_HOME", "")
    return (Path(named) if named.startswith("/") else Path.home() / ".local" / "state") / "sparkfleet" / kind


def state_file(kind: str, fleet_file: Path) -> Path:
    """What a command keeps of one fleet file."""
    key = hashlib.sha256(str(fleet_file.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]
    return state_folder(kind) / f"{key}.json"


def replace_file(path: Path, text: str, mode: int = 0o600) -> None:
    """Puts a text into the place of a file in one step, on disk when this returns. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
