"""Cgroups as deep, as many and so named as their owners like: walked without recursion, and beyond PATH_MAX."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkhost.watchdog.cgroup import MOST_WALKED, Cgroups


@contextlib.contextmanager
def deep(root: Path, names: list[str], pids: bytes) -> Iterator[None]:
    """A directory below directory by these names; the last holds a list of processes. Made and removed step by step."""
    here = os.open(root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    if pids:
        descriptor = os.open("cgroup.procs", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(descriptor, pids)
        os.close(descriptor)
    try:
        yield
    finally:
        if pids:
            os.unlink("cgroup.procs", dir_fd=here)
        for name in reversed(names):
            above = os.open("..", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = above
            os.rmdir(name, dir_fd=here)
        os.close(here)


@pytest.mark.parametrize("name", ["a", "a" * 250])
def test_a_process_1500_levels_down_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "cgroup.procs").write_text("0\n11\n")
    with deep(tmp_path / "unit", [name] * 1_500, b"12\n"):
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        assert Cgroups(tmp_path).members("/unit") == [11, 12]
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_is_beyond_the_bound_costs_no_more_time(tmp_path: Path) -> None:
    for number in range(3 * MOST_WALKED):
        (tmp_path / f"unit/{number}").mkdir(parents=True)
    (tmp_path / "unit" / "cgroup.procs").write_text("11\n")
    walked = list(Cgroups(tmp_path).walk("/unit"))
    assert len(walked) == MOST_WALKED
    assert Cgroups(tmp_path).members("/unit") == [11]


def test_a_tree_that_goes_while_it_is_walked_ends_the_walk(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / "unit" / name).mkdir(parents=True)
    walk = Cgroups(tmp_path).walk("/unit")
    next(walk), next(walk)
    shutil.rmtree(tmp_path / "unit")
    assert len(list(walk)) <= 4
    assert list(Cgroups(tmp_path).walk("/unit")) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "loop").symlink_to(tmp_path)
    assert len(list(Cgroups(tmp_path).walk("/unit"))) == 1


@pytest.fixture
def unified() -> Iterator[Path]:
    """A cgroup of this machine's own tree; whatever is in it is removed."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    mounts = [Path(words[1]) for words in lines if words[2] == "cgroup2"]
    made = next(iter(mounts), Path("/none")) / f"sparkfleet-test-{os.getpid()}"
    try:
        made.mkdir()
    except OSError:
        pytest.skip("there is no cgroup v2 tree to write to")
    yield made
    for folder, _, _ in os.walk(made, topdown=False):
        Path(folder).rmdir()


def test_real_cgroups_1500_levels_deep(unified: Path) -> None:
    child = os.fork()
    if not child:
        time.sleep(600)
        os._exit(0)
    cgroups = Cgroups(unified.parent)
    try:
        assert cgroups.is_populated(f"/{unified.name}") is False
        with deep(unified, ["a"] * 1_500, b""):
            bottom = unified.joinpath(*["a"] * 1_500)
            (bottom / "cgroup.procs").write_text(str(child))
            assert cgroups.members(f"/{unified.name}") == [child]
            assert cgroups.is_populated(f"/{unified.name}") is True
            os.kill(child, 9)
            os.waitpid(child, 0)
            child = 0
            assert cgroups.members(f"/{unified.name}") == []
            assert cgroups.is_populated(f"/{unified.name}") is False
        assert cgroups.is_populated("/sparkfleet-never-was") is False
    finally:
        if child:
            os.kill(child, 9)
            os.waitpid(child, 0)


def test_the_heaviest_come_first_and_empty_crowds_are_bounded(tmp_path: Path) -> None:
    def cgroup(path: str, current: int, *pids: int) -> None:
        folder = tmp_path / path
        folder.mkdir(parents=True)
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    cgroup("a", 10, 1)
    cgroup("b", 90)
    cgroup("b/small", 20, 2)
    cgroup("b/large", 70, 3, 4)
    for number in range(5_000):
        (tmp_path / f"crowd/{number}").mkdir(parents=True)
    assert list(Cgroups(tmp_path).heaviest()) == [3, 4, 2, 1]
