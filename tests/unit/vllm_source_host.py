"""A host for the measure vllm_source: below a directory of the test, with a double of PID 1.

PID 1, useradd and userdel are doubles: programs of these names that keep what they were called with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparkhost.base.resource import UPLOADS
from sparkhost.vllm_source import gone as vllm_source_gone
from sparkhost.vllm_source import resources as vllm_source
from sparkhost.vllm_source.resources import VllmBuild
from tests.unit.stack_hosts import UV
from tests.unit.vllm_checkout import World, places, world_in

GIB = 2**30
SYSTEMCTL = """\
#!/bin/sh
cd "$(dirname "$0")"
case "$1" in
show) case "$*" in *training.slice*) cat slice ;; *) cat unit ;; esac ;;
start) echo "$*" >> calls; echo ActiveState=activating > unit ;;
stop) echo "$*" >> calls; echo ActiveState=inactive > unit ;;
*) echo "$*" >> calls ;;
esac
"""


@dataclass
class Pid1:
    """The double of PID 1."""

    folder: Path

    def is_in(self, state: str) -> None:
        (self.folder / "unit").write_text(f"ActiveState={state}\n")

    def caps(self, limit: int | str) -> None:
        (self.folder / "slice").write_text(f"MemoryMax={limit}\n")

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def pid1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pid1:
    folder = tmp_path / "pid1"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL)
    for name in ("useradd", "userdel"):
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "$(dirname "$0")/calls"\n')
    for path in folder.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = Pid1(folder)
    found.is_in("inactive")
    found.caps(2 * GIB)
    return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host without anything of the measure."""
    places(tmp_path, monkeypatch)
    monkeypatch.setattr(vllm_source_gone, "UNIT_FILE", str(tmp_path / "unit-file"))
    monkeypatch.setattr(vllm_source, "UNIT_FILE", str(tmp_path / "written"))
    (tmp_path / "written").touch()
    monkeypatch.setattr(vllm_source_gone, "ACCOUNTS", tmp_path / "passwd")
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    yield tmp_path
    UPLOADS.clear()


@pytest.fixture
def world(host: Path) -> World:
    return world_in(host)


def wanted(world: World, commit: str) -> VllmBuild:
    """What a deploy asks of this host: a build of the commit, which may take 1 GiB."""
    return VllmBuild(vars(world.request(commit)), UV, GIB)
