"""Jobs of a real training.slice, ended by the daemon as whole cgroups."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.watchdog_host import IGNORES, Host, made_host, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with made_host(tmp_path) as made:
        yield made


@pytest.fixture
def slices(host: Host) -> Iterator[Path]:
    """A training.slice in the real cgroup tree, with jobs `a` and `b`; on a machine that lets us make one."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    if root is None or (root / "training.slice").exists():
        pytest.skip("needs a cgroup v2 tree without a training.slice")
    folders = [root / "training.slice", *(root / "training.slice" / f"{name}.service" for name in "ab")]
    try:
        for folder in folders:
            folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make cgroups: {error}")
    host.cgroups = root
    yield folders[0]
    for child in host.children:
        child.kill()
        child.wait(20)
    until(lambda: not any((folder / "cgroup.procs").read_text() for folder in folders))
    for folder in reversed(folders):
        folder.rmdir()


def test_a_job_is_a_whole_cgroup_and_root_can_take_it_out(host: Host, slices: Path) -> None:
    """The larger job is marked as `ManagedOOMPreference=omit` marks it: the other one goes, with all its processes."""
    jobs = {}
    for name, sizes in {"a": (60, 20), "b": (20, 16)}.items():
        jobs[name] = [host.victim(IGNORES, size) for size in sizes]
        for process in jobs[name]:
            (slices / f"{name}.service" / "cgroup.procs").write_text(str(process.pid))
    os.setxattr(slices / "a.service", "user.oomd_omit", b"1")
    host.daemon()
    host.available(80)
    assert [process.wait(20) for process in jobs["b"]] == [-signal.SIGKILL] * 2
    event = host.event("kill")
    assert (event["victim"]["kind"], event["victim"]["name"], event["victim"]["processes"]) == ("job", "b.service", 2)
    assert [process.poll() for process in jobs["a"]] == [None, None]
    assert next(c for c in event["candidates"] if c["name"] == "a.service")["protected"] is True
    # A user can set the mark on a cgroup that they own: there it counts for nothing.
    os.chown(slices / "a.service", 64001, -1)
    assert [process.wait(20) for process in jobs["a"]] == [-signal.SIGKILL] * 2
