"""Which processes use a release: real ones, and one that cannot be looked at."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparkhost.base import bounded
from sparkhost.stack import store as stack_store


def test_a_process_that_uses_a_release_is_found(tmp_path: Path) -> None:
    release = tmp_path / "stack"
    release.mkdir()
    environment = {**os.environ, "VIRTUAL_ENV": str(release)}
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        assert list(stack_store.users_of(release)) == [process.pid]
        assert list(stack_store.users_of(tmp_path / "another")) == []
        process.stdin.close()


def test_a_process_that_cannot_be_looked_at_counts_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it uses must not be removed under it. Its maps are an answer that never comes, or one without end."""
    monkeypatch.setattr(stack_store, "PROC", tmp_path)
    for pid in (10, 11, 12):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(b"python\0")
    (tmp_path / "12" / "environ").write_bytes(b"VIRTUAL_ENV=/opt/stack\0")
    with (tmp_path / "10" / "maps").open("wb") as stream:
        stream.truncate(2**40)
    stalled = tmp_path / "11" / "maps"
    original = bounded.read

    def read(path: Path, *more: int) -> bytes:
        if path == stalled:
            time.sleep(60)  # in the child: stands for a read that the kernel does not end
        return original(path, *more)

    monkeypatch.setattr(bounded, "read", read)
    started = time.monotonic()
    assert sorted(stack_store.users_of(Path("/opt/stack"))) == [10, 11, 12]
    assert time.monotonic() - started < 20
