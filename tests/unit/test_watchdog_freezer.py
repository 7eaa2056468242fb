"""The brake on real cgroups: what it stops goes on again, whatever becomes of the watchdog. Needs root, cgroup v2."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkhost.watchdog.freezer import ROOM, Freezer, read_names

THAW = Path(__file__).resolve().parents[2] / "files" / "watchdog" / "sparkfleet-thaw"
HOST = Path(__file__).resolve().parents[2] / "files" / "host"
SPIN = "import time\nwhile True: time.sleep(0.001)"


def find_cgroup2() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2" and os.access(fields[1], os.W_OK) and os.geteuid() == 0:
            return Path(fields[1])
    return None


ROOT = find_cgroup2()
needs_cgroups = pytest.mark.skipif(ROOT is None, reason="needs root and a cgroup v2 that can be written to")


class Unit:
    """A real cgroup with a real process in it that does something all the time."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = f"/{name}"
        self.path = root / name
        self.path.mkdir()
        self.process = subprocess.Popen([sys.executable, "-c", SPIN])
        (self.path / "cgroup.procs").write_text(str(self.process.pid))

    @property
    def is_still(self) -> bool:
        """Whether the kernel says so; it takes a moment to stop a process that is in the kernel."""
        for _ in range(100):
            if "frozen 1" in (self.path / "cgroup.events").read_text():
                return True
            time.sleep(0.01)
        return False

    @property
    def moves(self) -> bool:
        for _ in range(100):
            if "frozen 0" in (self.path / "cgroup.events").read_text():
                return True
            time.sleep(0.01)
        return False

    def remove(self) -> None:
        if not self.path.exists():
            return
        (self.path / "cgroup.freeze").write_text("0")
        self.process.kill()
        self.process.wait()
        for _ in range(100):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.01)


@pytest.fixture
def unit() -> Iterator[Unit]:
    assert ROOT is not None
    made = Unit(ROOT, f"sparkfleet-test-{os.getpid()}.service")
    yield made
    made.remove()


@needs_cgroups
def test_what_is_frozen_stands_still_and_goes_on(unit: Unit, tmp_path: Path) -> None:
    assert ROOT is not None
    freezer = Freezer(ROOT, tmp_path / "frozen")
    assert freezer.freeze([unit.name, "/not-there.service"]) == (unit.name,)
    assert unit.is_still
    assert read_names((tmp_path / "frozen").read_bytes()) == [unit.name]
    assert freezer.thaw([unit.name]) == (unit.name,)
    assert unit.moves
    assert read_names((tmp_path / "frozen").read_bytes()) == []


@needs_cgroups
def test_what_somebody_else_has_frozen_stays_so(unit: Unit, tmp_path: Path) -> None:
    assert ROOT is not None
    (unit.path / "cgroup.freeze").write_text("1")
    freezer = Freezer(ROOT, tmp_path / "frozen")
    assert freezer.freeze([unit.name]) == ()
    assert freezer.thaw([unit.name]) == ()
    assert freezer.thaw_all() == ()
    assert unit.is_still


@needs_cgroups
def test_a_cgroup_that_a_user_owns_is_not_frozen(unit: Unit, tmp_path: Path) -> None:
    assert ROOT is not None
    os.chown(unit.path, 12345, 12345)
    assert Freezer(ROOT, tmp_path / "frozen").freeze([unit.name]) == ()
    assert unit.moves


@needs_cgroups
@pytest.mark.parametrize("helper", ["script", "next watchdog"])
def test_a_watchdog_that_is_killed_leaves_nobody_frozen(unit: Unit, tmp_path: Path, helper: str) -> None:
    assert ROOT is not None
    record = tmp_path / "frozen"
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sparkhost.watchdog.freezer import Freezer\n"
        "Freezer(Path(sys.argv[1]), Path(sys.argv[2])).freeze([sys.argv[3]])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = [sys.executable, "-c", program, str(ROOT), str(record), unit.name]
    ended = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(HOST)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert unit.is_still
    if helper == "script":
        subprocess.run(["/bin/sh", str(THAW), str(record), str(ROOT)], check=True)
        assert Freezer(ROOT, record).left == ()
    else:
        assert Freezer(ROOT, record).left == (unit.name,)
    assert unit.moves


@needs_cgroups
def test_one_that_has_gone_is_off_the_record(unit: Unit, tmp_path: Path) -> None:
    assert ROOT is not None
    freezer = Freezer(ROOT, tmp_path / "frozen")
    freezer.freeze([unit.name])
    (unit.path / "cgroup.kill").write_text("1")
    unit.process.wait()
    for _ in range(100):
        try:
            unit.path.rmdir()
            break
        except OSError:
            time.sleep(0.01)
    assert freezer.thaw_all() == (unit.name,)
    assert freezer.names == ()


@pytest.mark.parametrize("name", ["/", "", "/system.slice", "/user.slice/", "/../etc", "/a/../../etc"])
def test_what_holds_the_host_is_never_frozen(tmp_path: Path, name: str) -> None:
    for folder in ("system.slice", "user.slice", "a", "etc"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cgroup.freeze").write_text("0")
    (tmp_path / "cgroup.freeze").write_text("0")
    assert Freezer(tmp_path, tmp_path / "frozen").freeze([name]) == ()
    assert {path.read_text() for path in tmp_path.rglob("cgroup.freeze")} == {"0"}


def test_a_record_without_room_freezes_no_more(tmp_path: Path) -> None:
    names = [f"/{'x' * 200}-{number}" for number in range(ROOM // 200)]
    for name in names:
        (tmp_path / name[1:]).mkdir()
        (tmp_path / name[1:] / "cgroup.freeze").write_text("0")
    freezer = Freezer(tmp_path, tmp_path / "frozen")
    done = freezer.freeze(names)
    assert 300 < len(done) < len(names)
    moving = [name for name in names if (tmp_path / name[1:] / "cgroup.freeze").read_text() == "0"]
    assert sorted(moving) == sorted(set(names) - set(done))
    assert read_names((tmp_path / "frozen").read_bytes()) == list(done)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (b"", []),
        (b"\0" * 99, []),
        (b"/a\n/b\n\0\0", ["/a", "/b"]),
        (b"/a\n/b", ["/a"]),  # cut: the name may be another's
        (b"rubbish\n\xff\n/a b\n/a b\n", ["/a b"]),
    ],
)
def test_a_record_is_read_as_far_as_it_makes_sense(record: bytes, names: list[str]) -> None:
    assert read_names(record) == names


def test_the_script_takes_no_link_and_leaves_the_tree(tmp_path: Path) -> None:
    (tmp_path / "outside" / "x").mkdir(parents=True)
    victim = tmp_path / "outside" / "x" / "cgroup.freeze"
    victim.write_text("1")
    (tmp_path / "root").mkdir()
    record = tmp_path / "frozen"
    record.write_bytes(b"/../outside/x\n\0\0")
    subprocess.run(["/bin/sh", str(THAW), str(record), str(tmp_path / "root")], check=True)
    assert victim.read_text() == "1"
    record.unlink()
    record.symlink_to(victim)
    subprocess.run(["/bin/sh", str(THAW), str(record), str(tmp_path / "root")], check=True)
    assert victim.read_text() == "1"


@needs_cgroups
def test_the_script_beside_a_running_watchdog_does_it_no_harm(unit: Unit, tmp_path: Path) -> None:
    """Its record is mapped: a file that gets shorter would end the watchdog at its next freeze (SIGBUS)."""
    assert ROOT is not None
    record = tmp_path / "frozen"
    freezer = Freezer(ROOT, record)
    freezer.freeze([unit.name])
    subprocess.run(["/bin/sh", str(THAW), str(record), str(ROOT)], check=True)
    assert unit.moves
    assert record.stat().st_size == ROOM
    assert freezer.thaw_all() == (unit.name,)
    assert freezer.freeze([unit.name]) == (unit.name,)
    assert unit.is_still
