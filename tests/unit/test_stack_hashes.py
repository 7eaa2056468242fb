"""Files are hashed by several processes, and what one of them cannot tell is not made up."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from sparkhost.stack.hashes import Worker, hashes


def tree(root: Path) -> dict[str, bytes]:
    content = {f"d{number % 3}/f{number}": bytes([number]) * number * 1000 for number in range(40)}
    for path, data in content.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(data)
    return content


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_any_number_of_processes_tells_the_same(tmp_path: Path, at_once: int) -> None:
    content = tree(tmp_path)
    (tmp_path / "link").symlink_to("d0/f0")
    found = hashes(tmp_path, [*content, "link"], at_once)
    assert list(found) == [*content, "link"]
    assert found.pop("link") == "-> d0/f0"
    assert found == {path: hashlib.sha256(data).hexdigest() for path, data in content.items()}


def test_no_files_have_no_hashes(tmp_path: Path) -> None:
    assert hashes(tmp_path, []) == {}


def test_what_a_killed_process_has_not_told_is_hashed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"1")
    os.mkfifo(tmp_path / "second")  # opening it for reading waits for a writer
    worker = Worker(tmp_path, ["first", "second"])
    os.kill(worker.pid, signal.SIGKILL)
    (tmp_path / "second").unlink()
    (tmp_path / "second").write_bytes(b"2")
    try:
        assert worker.result() == {
            "first": hashlib.sha256(b"1").hexdigest(),
            "second": hashlib.sha256(b"2").hexdigest(),
        }
    finally:
        worker.end()


def test_a_file_that_a_process_cannot_read_is_an_error(tmp_path: Path) -> None:
    worker = Worker(tmp_path, ["gone"])
    try:
        with pytest.raises(FileNotFoundError, match="gone"):
            worker.result()
    finally:
        worker.end()


def test_a_process_that_ends_early_is_collected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "waits")
    worker = Worker(tmp_path, ["waits"])
    worker.end()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
