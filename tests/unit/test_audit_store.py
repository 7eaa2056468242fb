"""The store: whole runs or none, for their owner alone, however a write ends."""

from __future__ import annotations

import gzip
import os
import signal
import stat
import subprocess
import sys
import textwrap
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sparkfleet.audit import store as store_module
from sparkfleet.audit.model import Run
from sparkfleet.audit.store import Retention, Store, default_folder, new_id
from sparkfleet.exit_codes import CommandFailed
from tests.unit.audit_runs import CONTROLS, hostile, small

MIB = 2**20
NOW = datetime.now(UTC)


def at(days_ago: float, tail: str = "3f9c", fleet_file: str = "my-lab.yaml") -> Run:
    started = NOW - timedelta(days=days_ago)
    id = f"{started:%Y%m%dT%H%M%SZ}-{tail}"
    return replace(small(), id=id, started=started.isoformat(), fleet_file=fleet_file)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a" / "store")


def test_a_new_id_is_one_that_is_kept(store: Store) -> None:
    id = new_id(datetime.fromisoformat("2026-11-24T13:15:00+01:00"))
    assert id.startswith("20261124T121500Z-")
    store.append(replace(small(), id=id))
    assert store.ids() == (id,)


def test_what_is_kept_is_what_was_given(store: Store) -> None:
    runs = [at(2), replace(hostile(), id=at(1).id), at(0)]
    for run in runs:
        store.append(run, CONTROLS)
    assert [store.load(run.id) for run in runs] == runs
    assert [one.id for one in store.runs()] == [run.id for run in reversed(runs)]
    assert next(iter(store.runs())).totals["fail"] == 3
    assert store.load("latest") == runs[-1]


def test_it_is_for_its_owner_alone(store: Store) -> None:
    path = store.append(at(0))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_a_run_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    for days, tail in ((1, "aaaa"), (0, "aaaa"), (0, "bbbb")):
        store.append(at(days, tail))
    assert store.find(at(0, "b").id) == at(0, "bbbb").id
    for given, said in (
        ("2", "got '2', which begins 3 runs, such as "),
        ("x\x1b", "got 'x\\\\x1b', expected the id of a run (the newest is "),
        ("", "got '', expected the id of a run"),
        ("../x", "got '../x', expected the id of a run"),
    ):
        with pytest.raises(CommandFailed) as caught:
            store.load(given)
        assert said in str(caught.value)
        assert caught.value.code == 4


def test_an_empty_store_is_no_error_until_a_run_is_asked_for(store: Store) -> None:
    assert list(store.runs()) == []
    assert store.before(at(0)) is None
    with pytest.raises(CommandFailed, match="holds no run yet: sparkfleet audit makes one"):
        store.load("latest")


def test_the_run_before_is_of_the_same_fleet(store: Store) -> None:
    old, other, new = at(3), at(2, fleet_file="other.yaml"), at(1)
    for run in (old, other, new, at(0)):
        store.append(run)
    assert store.before(new) == old
    assert store.before(old) is None
    assert [one.id for one in store.runs("other.yaml")] == [other.id]


def test_an_id_is_used_once(store: Store) -> None:
    store.append(at(0))
    before = store.folder.joinpath(f"{at(0).id}.json.gz").read_bytes()
    with pytest.raises(CommandFailed, match="there is a run of this id already"):
        store.append(replace(at(0), notes=("another",)))
    assert store.folder.joinpath(f"{at(0).id}.json.gz").read_bytes() == before


@pytest.mark.parametrize("id", ["", "../../etc/x", "latest", "20261124T121500Z-\x1b"])
def test_what_is_no_id_is_not_written(id: str, store: Store) -> None:
    with pytest.raises(CommandFailed, match="is no id of a run"):
        store.append(replace(small(), id=id))
    assert not store.folder.exists()


def test_retention_by_count_and_by_age(store: Store) -> None:
    store.retention = Retention(count=3, days=30)
    for days in (40, 5, 4, 3, 2):
        store.append(at(days))
    assert store.ids() == tuple(at(days).id for days in (4, 3, 2))
    store.folder.joinpath("notes.txt").write_text("somebody's own")
    store.retention = Retention(count=3, days=1)
    store.append(at(1.5, "aaaa"))
    assert store.ids() == (at(1.5, "aaaa").id,)
    assert store.folder.joinpath("notes.txt").exists()


def test_the_newest_run_stays_however_old_it_is(store: Store) -> None:
    store.retention = Retention(count=0, days=1)
    store.append(at(500))
    assert store.ids() == (at(500).id,)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other"])
def test_a_damaged_file_is_one_line_and_hides_no_other(damage: str, store: Store) -> None:
    path = store.append(at(1))
    good = store.append(at(0))
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "flipped": data[:200] + bytes([data[200] ^ 255]) + data[201:],
            "empty": b"",
            "text": b"{}",
            "other": gzip.compress(b"{}"),
        }[damage]
    )
    with pytest.raises(CommandFailed, match="is damaged") as caught:
        store.load(at(1).id)
    assert "\n" not in str(caught.value)
    assert good.name.startswith(next(iter(store.runs())).id)
    assert store.load("latest") == at(0)


def test_a_small_file_that_holds_very_much_is_not_unpacked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST", MIB)
    path = store.append(at(1))
    path.write_bytes(gzip.compress(b"x" * 64 * MIB))
    assert path.stat().st_size < MIB
    tracemalloc.start()
    with pytest.raises(CommandFailed, match=r"is damaged .it has more than 1 MiB"):
        store.load(at(1).id)
    assert list(store.runs()) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB


def test_what_could_not_be_read_again_is_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST", 10)
    with pytest.raises(CommandFailed, match="was not kept: audit part of the fleet"):
        store.append(at(1))
    assert store.ids() == ()


WRITER = """
    import os, resource, signal, sys
    from pathlib import Path
    from sparkfleet.audit.store import Store
    from sparkfleet.exit_codes import CommandFailed
    from tests.unit.test_audit_store import at
    how, folder = sys.argv[1:]
    if how == "full":
        # The write ends with an error after some bytes, as it does on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
    else:
        real = getattr(os, how)
        def killed(*arguments):
            if how == "link":
                real(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        setattr(os, how, killed)
    try:
        Store(Path(folder)).append(at(0, "dead"))
    except CommandFailed as error:
        sys.exit(str(error))
"""


def write(how: str, folder: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", textwrap.dedent(WRITER), how, str(folder)]
    return subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )


def test_a_full_disk_leaves_nothing(store: Store) -> None:
    store.append(at(1))
    done = write("full", store.folder)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written: File too large: nothing of this run was kept; make room" in done.stderr
    assert [path.name for path in store.folder.iterdir()] == [f"{at(1).id}.json.gz"]


@pytest.mark.parametrize(("how", "there"), [("fsync", False), ("link", True)])
def test_a_killed_process_leaves_a_whole_run_or_none(how: str, there: bool, store: Store) -> None:
    store.append(at(1))
    assert write(how, store.folder).returncode == -signal.SIGKILL
    assert len(list(store.folder.glob(".unfinished-*"))) == 1
    assert len(store.ids()) == 1 + there
    assert [store.load(id).id for id in store.ids()] == list(store.ids())
    store.append(at(0, "ffff"))
    assert list(store.folder.glob(".unfinished-*")) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed, match="cannot be written: Not a directory"):
        Store(tmp_path / "file" / "store").append(at(0))
    with pytest.raises(CommandFailed, match="cannot be read: Not a directory"):
        Store(tmp_path / "file").ids()


def test_where_runs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_folder() == Path("/var/state/sparkfleet/audit")
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", unset)
        assert default_folder() == tmp_path / ".local/state/sparkfleet/audit"
