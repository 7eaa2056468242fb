"""What /proc, cgroupfs, the GPU's sample and the configuration may be at worst: it costs that piece, no more."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkhost.base import gpu_sample, small_files
from sparkhost.watchdog import config
from sparkhost.watchdog.cgroup import Cgroups, Charge
from sparkhost.watchdog.meminfo import NoMemAvailable, field
from sparkhost.watchdog.model import GIB, MIB
from sparkhost.watchdog.process import Processes, parse_stat, parse_status

PAGES = 25_000
"""In the fixtures' `stat`: 97.7 MiB."""
HOG, ODD = 88, 77


def put(root: Path, pid: int, groups: str = "", anonymous: int = 200 * 1024) -> None:
    """A process as procfs shows it: 97.7 MiB by `stat`, `anonymous` kB by `status`."""
    folder = root / str(pid)
    folder.mkdir(parents=True)
    folder.joinpath("stat").write_text(
        f"{pid} (x) S 1 {pid} {pid} 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 {PAGES} 0\n"
    )
    folder.joinpath("status").write_text(
        f"Name:\tx\nUid:\t1005\t1\t1\t1\nGroups:\t{groups}\nRssAnon:\t{anonymous} kB\nRssShmem:\t0 kB\n"
    )
    folder.joinpath("cgroup").write_text("0::/system.slice/a.service\n")


class Raising(Processes):
    """Has a read of one file fail as the kernel may have it fail."""

    def __init__(self, proc: Path, name: str, error: Exception) -> None:
        super().__init__(proc)
        self.name, self.error = name, error

    def read(self, pid: int, name: str) -> bytes:
        if (pid, name) == (ODD, self.name):
            raise self.error
        return super().read(pid, name)


def odd_files(path: Path) -> Iterator[str]:
    """Puts one thing after the other in a file's place, and says what."""
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        yield f"cut at {length}"
    for byte in (b"\0", b"[", b"(", b")", b"9", b"\n", b"\xff"):
        path.write_bytes(byte * MIB)
        yield f"1 MiB of {byte!r}"
    path.unlink()
    yield "absent"
    os.mkfifo(path)
    yield "a FIFO"
    path.unlink()
    path.mkdir()
    yield "a directory"
    path.rmdir()
    path.symlink_to("/dev/zero")
    yield "/dev/zero"
    path.unlink()
    path.write_bytes(good)


@pytest.mark.parametrize("name", ["stat", "status", "cgroup"])
def test_an_odd_file_of_one_process_hides_no_other(tmp_path: Path, name: str) -> None:
    put(tmp_path, ODD)
    put(tmp_path, HOG)
    for what in odd_files(tmp_path / str(ODD) / name):
        found = {process.pid: process for process in Processes(tmp_path).table()}
        assert found[HOG].anonymous == 200 * MIB, what
        if name == "status":
            assert found[ODD].anonymous > 0, what


@pytest.mark.parametrize("name", ["stat", "status", "cgroup"])
@pytest.mark.parametrize(
    "error", [OSError(code, "x") for code in (errno.EIO, errno.EACCES, errno.ENODEV, errno.EAGAIN)] + [IndexError()]
)
def test_an_error_of_one_process_hides_no_other(tmp_path: Path, name: str, error: Exception) -> None:
    put(tmp_path, ODD)
    put(tmp_path, HOG)
    found = {process.pid: process for process in Raising(tmp_path, name, error).table()}
    assert found[HOG].anonymous == 200 * MIB
    if name == "status":
        assert found[ODD].anonymous == PAGES * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("groups", [1_000, 1_119, 1_200, 65_536])
def test_a_process_in_many_groups_holds_what_it_holds(tmp_path: Path, groups: int) -> None:
    put(tmp_path, ODD, " ".join(str(2_000_000_000 + number) for number in range(groups)))
    (found,) = Processes(tmp_path).table()
    assert (found.anonymous, found.owner) == (200 * MIB, 1005)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be in any groups")
def test_a_real_process_in_many_groups_holds_what_it_holds() -> None:
    ready, say = os.pipe()
    child = os.fork()
    if not child:
        os.setgroups(range(100_000, 101_200))
        kept = bytearray(b"x") * (64 * MIB)
        os.write(say, b"x")
        time.sleep(600)
        os._exit(len(kept) & 1)
    try:
        os.read(ready, 1)
        assert Path(f"/proc/{child}/status").stat()
        found = Processes(Path("/proc")).process(child)
        assert found is not None
        assert found.anonymous > 64 * MIB
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(say)


@given(st.binary())
def test_parsers_say_one_thing_of_odd_bytes(text: bytes) -> None:
    for parse, refusal in ((parse_stat, ValueError), (lambda t: field(t, b"MemTotal"), NoMemAvailable)):
        with contextlib.suppress(refusal):
            parse(text)
    assert parse_status(text, 7)[1] >= 0


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_stat_with_odd_bytes_in_it_is_read_or_refused(noise: bytes, place: int) -> None:
    good = b"7 (x) S 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 25000 0\n"
    with contextlib.suppress(ValueError):
        parse_stat(good[:place] + noise + good[place:])


def test_a_cut_meminfo_is_no_meminfo() -> None:
    good = b"MemTotal:       131072 kB\nMemFree:          1024 kB\nMemAvailable:    65536 kB\n"
    for length in range(len(good)):
        for name in (b"MemTotal", b"MemFree", b"MemAvailable"):
            with contextlib.suppress(NoMemAvailable):
                assert field(good[:length], name) == field(good, name)
    with pytest.raises(NoMemAvailable, match="MemAvailable"):
        field(good[:-5], b"MemAvailable")


def sample(**more: object) -> str:
    device = {"unified": True, "processes": {"11": 5, "12": 7}}
    return json.dumps({"boottime": time.clock_gettime(time.CLOCK_BOOTTIME), "error": None, "devices": [device], **more})


def test_an_odd_sample_of_the_gpu_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sample.json"
    path.write_text(sample())
    for what in odd_files(path):
        seen = gpu_sample.read(str(path), 1000.0)
        assert (seen.unified, seen.own, bool(seen.problem)) == ({}, {}, True), what


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"boottime":' * 10_000, '{"boottime": Infinity}', '{"boottime": NaN}', '{"boottime": -1e999}'],
)
def test_a_sample_that_breaks_the_parser_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "sample.json").write_text(text)
    seen = gpu_sample.read(str(tmp_path / "sample.json"), 5.0)
    assert (seen.unified, bool(seen.problem)) == ({}, True)


@pytest.mark.parametrize(
    "size", ["Infinity", "NaN", "-1", "18446744073709551614", "1e400", "true", "null", '"7"', "[]"]
)
def test_a_figure_that_cannot_be_costs_that_figure(tmp_path: Path, size: str) -> None:
    (tmp_path / "sample.json").write_text(sample().replace('"12": 7', f'"12": {size}'))
    seen = gpu_sample.read(str(tmp_path / "sample.json"), 5.0)
    assert (seen.unified, seen.refused, seen.problem) == ({11: 5}, 1, "")


def load(path: Path) -> str:
    """Why a configuration is refused; "" where it is not."""
    try:
        config.load(path, 128 * GIB)
    except config.BadConfig as refused:
        return str(refused)
    return ""


def test_an_odd_configuration_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "watchdog.toml"
    path.write_text('term_below = "16GiB"\nprotect = ["a.service"]\n')
    for what in odd_files(path):
        said = load(path)
        assert said.count("\n") == 0, what
        assert not said or str(path) in said, what
    path.write_text("protect = " + "[" * 10_000)
    with pytest.raises(config.BadConfig):
        config.load(path, 128 * GIB)


def test_an_odd_charge_is_none_and_hides_no_other(tmp_path: Path) -> None:
    for name in ("odd", "hog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.stat").write_text("anon 5\nfile 9\nshmem 7\nunevictable 3\n")
        (tmp_path / name / "memory.max").write_text("4096\n")
    cgroups = Cgroups(tmp_path)
    asked: dict[str, Callable[[], object]] = {
        "memory.stat": lambda: cgroups.charge("/odd"),
        "memory.max": lambda: cgroups.limit("/odd"),
    }
    for name, ask in asked.items():
        for what in odd_files(tmp_path / "odd" / name):
            ask()
            assert cgroups.charge("/hog") == Charge(5, 7, 4096, 3), what
            assert cgroups.limit("/hog") == 4096, what


def test_a_file_is_read_whole_and_not_beyond_the_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 200_000)
    assert small_files.read(str(tmp_path / "file")) == b"x" * 200_000
    assert small_files.read(str(tmp_path / "file"), 70_000) == b"x" * 70_000
    assert len(small_files.read("/dev/zero")) == small_files.LARGEST
