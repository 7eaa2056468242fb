"""Runs, kept on this machine: one compressed JSON report each, whole, so that today's rules can judge them again.

A run is there or it is not: it is written under another name, brought to the disk, and then linked to its own. What a
full disk or a killed process leaves behind has that other name, is never read as a run, and goes with the next one.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import secrets
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sparkfleet.audit.model import Control, Run
from sparkfleet.audit.report import json_file
from sparkfleet.audit.report.json_file import NotAReport
from sparkfleet.audit.text import counted, visible
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.state_files import state_folder

RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4,16}")
SUFFIX = ".json.gz"
UNFINISHED = ".unfinished-"
# Evidence compresses well even so, and twice as fast as with 6.
LEVEL = 3
MOST = 512 * 2**20
"""Bytes of a run without compression: a file of 1 MiB can hold 1 GiB. A host's evidence has 0.1 to 2 MiB."""
MOST_OF_A_LINE = 2**16
"""Bytes of a line of a run's head."""


@dataclass(frozen=True)
class Retention:
    """How long runs are kept; what either rule gives up goes. The newest run always stays."""

    count: int = 1000
    days: int = 400


@dataclass(frozen=True)
class Stored:
    """What is known about a run without reading all of it."""

    id: str
    started: str
    """ISO 8601, UTC."""
    fleet_file: str
    totals: dict[str, int]
    """How many verdicts of each status."""


def new_id(started: datetime) -> str:
    """An id for a run that started then; two of the same second differ in their last letters."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def default_folder() -> Path:
    """`$XDG_STATE_HOME/sparkfleet/audit`; as its specification has it, a relative path there counts as none."""
    return state_folder("audit")


class Store:
    """A folder of runs. It is made, for its owner alone, when the first run is appended."""

    def __init__(self, folder: Path | None = None, retention: Retention = Retention()) -> None:
        self.folder = folder or default_folder()
        self.retention = retention

    def append(self, run: Run, controls: Sequence[Control] = ()) -> Path:
        """Keeps a run, and gives up those that are too many or too old. Returns its file.

        Raises:
            CommandFailed: its id is none or is there already, or it cannot be written; the runs before it are as they
                were.
        """
        if not RUN_ID.fullmatch(run.id):
            raise CommandFailed(
                f"{visible(run.id)[:60]!r} is no id of a run, expected one such as 20261124T121500Z-3f9c"
            )
        text = json_file.dumps(run, controls).encode("ascii")
        if len(text) > MOST:
            raise CommandFailed(
                f"{self.folder}: the run has {len(text) // 2**20} MiB, more than {MOST // 2**20} MiB, and was not "
                "kept: audit part of the fleet (--limit)"
            )
        data = gzip.compress(text, LEVEL, mtime=0)
        target = self.folder / f"{run.id}{SUFFIX}"
        try:
            with self._locked():
                self._sweep()
                self._write(target, data)
                self._prune(run.id)
        except FileExistsError as error:
            raise CommandFailed(f"{target}: there is a run of this id already: run the audit again") from error
        except OSError as error:
            remedy = "nothing of this run was kept; make room, or choose another place with --store"
            raise CommandFailed(f"{target}: cannot be written: {error.strerror}: {remedy}") from error
        return target

    def ids(self) -> tuple[str, ...]:
        """The ids of all runs, the oldest first. Raises CommandFailed where the folder cannot be read."""
        try:
            names = [entry.name for entry in os.scandir(self.folder)]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._bad(f"cannot be read: {error.strerror}") from error
        ids = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
        return tuple(sorted(id for id in ids if RUN_ID.fullmatch(id)))

    def runs(self, fleet_file: str | None = None) -> Iterator[Stored]:
        """All runs, or those of a fleet file, the newest first; a file that cannot be read is passed over.

        Only the head of each file is read, and only of the runs that are asked for.
        """
        for id in reversed(self.ids()):
            try:
                stored = self._head(id)
            except CommandFailed:
                continue
            if fleet_file in (None, stored.fleet_file):
                yield stored

    def load(self, id: str) -> Run:
        """A run, equal to the one that was appended. `id`: it, its beginning, or `latest`.

        Raises:
            CommandFailed: there is no such run, the beginning is that of several, or its file is damaged.
        """
        found = self.find(id)
        path = self.folder / f"{found}{SUFFIX}"
        try:
            with gzip.open(path) as stream:
                data = stream.read(MOST + 1)
            if len(data) > MOST:
                raise NotAReport(f"it has more than {MOST // 2**20} MiB")
            return json_file.loads(data.decode("ascii"))
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, NotAReport) as error:
            raise self._damaged(path, error) from error

    def find(self, id: str) -> str:
        """The id of the run that is meant. Raises CommandFailed as `load` does."""
        ids = self.ids()
        if id == "latest":
            if not ids:
                raise self._bad("holds no run yet: sparkfleet audit makes one")
            return ids[-1]
        found = [one for one in ids if one.startswith(id)] if id else []
        if id in ids:
            return id
        shown = repr(visible(id)[:60])
        if not found:
            has = f"the newest is {ids[-1]}" if ids else "it holds none"
            raise self._bad(f"got {shown}, expected the id of a run ({has})")
        if len(found) > 1:
            raise self._bad(
                f"got {shown}, which begins {counted(len(found), 'run')}, such as {found[0]} and {found[1]}"
            )
        return found[0]

    def before(self, run: Run) -> Run | None:
        """The newest run of the same fleet file that is older than this one; None where there is none.

        Raises:
            CommandFailed: its file is damaged.
        """
        for stored in self.runs(run.fleet_file):
            if stored.id < run.id:
                return self.load(stored.id)
        return None

    def _head(self, id: str) -> Stored:
        path = self.folder / f"{id}{SUFFIX}"
        try:
            with gzip.open(path, "rt", encoding="ascii") as stream:
                head = json_file.head("".join(stream.readline(MOST_OF_A_LINE) for _ in range(4)))
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, NotAReport) as error:
            raise self._damaged(path, error) from error
        totals = {str(status): int(count) for status, count in dict(head.get("totals") or {}).items()}
        return Stored(id, head["started"], head["fleet_file"], totals)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time appends. Readers need no lock: a file is whole or not there."""
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _write(self, target: Path, data: bytes) -> None:
        # mkstemp's mode is 0600, and stays so.
        descriptor, name = tempfile.mkstemp(prefix=UNFINISHED, dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # Unlike a rename, a link takes nobody else's place.
            os.link(name, target)
        finally:
            Path(name).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Takes away what a killed process has left: whoever holds the lock writes no other file."""
        for path in self.folder.glob(f"{UNFINISHED}*"):
            path.unlink(missing_ok=True)

    def _prune(self, newest: str) -> None:
        ids = self.ids()
        oldest = datetime.now(UTC) - timedelta(days=self.retention.days)
        kept = ids[-max(self.retention.count, 1) :]
        for id in ids:
            if id != newest and id != ids[-1] and (id not in kept or _time(id) < oldest):
                (self.folder / f"{id}{SUFFIX}").unlink(missing_ok=True)

    def _bad(self, text: str) -> CommandFailed:
        return CommandFailed(f"{self.folder}: {text}", ExitCode.BAD_CONFIGURATION)

    def _damaged(self, path: Path, error: Exception) -> CommandFailed:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return CommandFailed(f"{path}: is damaged ({visible(reason)[:120]}): move it away", ExitCode.BAD_CONFIGURATION)


def _time(id: str) -> datetime:
    """When a run started, as its id says; one that says no possible time is as old as can be."""
    try:
        return datetime.strptime(id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
