"""Every write of a guarded change and of its take-back fails, one after the other, and then the host is started again.

strace(1) fails them in the kernel's place: with a full disk, a read-only or a broken one, or by SIGKILL. Afterwards the
host is as it was or as it was to be, never something between, and nothing waits any more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, cycle
from pathlib import Path

import pytest

from tests.unit import guarded_host as host

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="makes files of root"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]
SYSCALLS = (
    "openat",
    "write",
    "fsync",
    "fchmod",
    "fchown",
    "fsetxattr",
    "rename",
    "unlink",
    "rmdir",
    "mkdir",
    "symlink",
)
ENDED = "var/lib/sparkfleet/rollback/record.ended"
# Once, or (+) all calls of that name from there on.
FAULTS = (
    "error=ENOSPC:when={}",
    "signal=KILL:when={}",
    "error=EROFS:when={}",
    "signal=KILL:when={}",
    "error=EIO:when={}",
    "error=EROFS:when={}+",
    "signal=KILL:when={}",
)
# At least one of them for each write, in turn; with SPARKFLEET_ALL_FAULTS=1 every write fails in every way (10 min).
ALL = os.environ.get("SPARKFLEET_ALL_FAULTS") == "1"


def made(tmp_path: Path, name: str) -> Path:
    root = tmp_path / name
    host.build(root)
    return root


def trace(root: Path, part: str, *inject: str) -> str:
    """Does a part of the deploy under strace; the trace."""
    log = root.with_suffix(".trace")
    words = ["strace", "-y", "-o", str(log), "-e", f"trace={','.join(SYSCALLS)}", *inject]
    subprocess.run([*words, *host.command(root, part)], capture_output=True, timeout=60, check=False)
    return log.read_text()


def writes(text: str, root: Path) -> Iterator[tuple[str, int]]:
    """Each system call of a trace that writes below `root`: its name, and the how manieth of that name it is."""
    numbers = {name: count(1) for name in SYSCALLS}
    for line in text.splitlines():
        name = line.partition("(")[0]
        if name in numbers:
            number = next(numbers[name])
            if str(root) in line and " = -1 " not in line and (name != "openat" or "O_CREAT" in line):
                yield name, number


def faults(text: str, root: Path) -> Iterator[str]:
    turn = cycle(FAULTS)
    for name, number in writes(text, root):
        fault = next(turn)
        # What ends a step is where half of it could stay: those fail by an error as well.
        also = ("error=EIO:when={}",) if name in ("fsync", "rename") else ()
        chosen = dict.fromkeys(FAULTS if ALL else (fault, *also))
        yield from (f"inject={name}:{fault.format(number)}" for fault in chosen)


@pytest.mark.parametrize("part", ["change", "take-back"])
def test_whatever_write_fails_the_host_is_as_before_or_as_proved(tmp_path: Path, part: str) -> None:
    sample = made(tmp_path, "0000")
    old = host.snapshot(sample)
    if part == "take-back":
        subprocess.run(host.command(sample, "change-only"), check=True)
    text = trace(sample, part)
    new = host.snapshot(sample)
    assert (new == old) is (part == "take-back")
    chosen = list(faults(text, sample))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        roots = (tmp_path / f"{number:04}" for number in range(1, len(chosen) + 1))
        found = pool.map(lambda root, fault: fails(root, fault, part, old, new), roots, chosen)
        wrong = [line for line in found if line]
    print(f"{part}: {len(chosen)} faults in {len(list(writes(text, sample)))} writes, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    assert len(chosen) > 40


def fails(root: Path, fault: str, part: str, old: dict[str, object], new: dict[str, object]) -> str:
    """What is wrong on a host after this fault in this part of a deploy, and a start; "" for nothing."""
    host.build(root)
    if part == "take-back":
        subprocess.run(host.command(root, "change-only"), check=True)
    if "INJECTED" not in trace(root, part, "-e", fault) and "KILL" not in fault:
        return f"{fault}: no such call"
    if not host.boots(root) and list(root.glob(ENDED)):
        # Only what is left of a change that has ended was not removed: the timer does that, or the next deploy.
        subprocess.run(host.command(root, "take-back"), check=True)
    now = host.snapshot(root)
    left = {name for name in now if host.LEFT.search(name)}
    state = {name: value for name, value in now.items() if name not in left}
    waits = list(root.glob("var/lib/sparkfleet/rollback/record.*"))
    shutil.rmtree(root)
    if state not in (old, new) or waits:
        return f"{fault}: {sorted(name for name in {*state, *old} if state.get(name) != old.get(name))}, {waits}"
    return f"{fault}: left {sorted(left)}" if left and "KILL" not in fault and "+" not in fault else ""


def armed(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    """A host whose change waits for its proof, and what it was before."""
    root = made(tmp_path, "host")
    old = host.snapshot(root)
    subprocess.run(host.command(root, "change-only"), check=True)
    assert host.snapshot(root) != old
    return root, old


@pytest.mark.parametrize("python", ["/no/such/python3", "/bin/false"])
def test_without_python_sh_takes_it_back(tmp_path: Path, python: str) -> None:
    """python3 is removed, or half upgraded; later it is back, and removes what sh has left."""
    root, old = armed(tmp_path)
    script = root / "var/lib/sparkfleet/rollback/program/take-back"
    text = script.read_text()
    script.write_text(text.replace("/usr/bin/python3", python))
    assert host.boots(root)
    paths = {name: value for name, value in host.snapshot(root).items() if name in old}
    assert paths == old
    assert list(root.glob(ENDED))
    script.write_text(text)
    assert host.boots(root)
    assert host.snapshot(root) == old


@pytest.fixture(params=["", "etc"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 1 MiB: the whole host's, or /etc alone."""
    mounted = tmp_path / "host" / request.param
    mounted.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mounted)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def fill(path: Path) -> None:
    """Takes all the room that is left."""
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"\0" * 4096) == 4096:
            pass


def test_a_full_disk_keeps_nothing_from_coming_back(disk: Path, tmp_path: Path) -> None:
    root, old = armed(tmp_path)
    fill(disk / "filler")
    assert host.boots(root)
    (disk / "filler").unlink()
    assert host.snapshot(root) == old
    assert not list(root.glob("var/lib/sparkfleet/rollback/record.*"))


def test_a_read_only_disk_is_tried_again_until_it_can_be_written_to(disk: Path, tmp_path: Path) -> None:
    root, old = armed(tmp_path)
    changed = host.snapshot(root)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert host.boots(root)
    assert host.snapshot(root) == changed, "nothing that the files there need is gone"
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert host.boots(root), "the record is there still"
    assert host.snapshot(root) == old


def test_what_can_be_read_of_a_damaged_record_comes_back_and_the_rest_is_told(tmp_path: Path) -> None:
    root, old = armed(tmp_path)
    record = root / "var/lib/sparkfleet/rollback/record.armed"
    record.write_bytes(record.read_bytes().replace(b"\tchanged\n", b"\t\xff\xfe\nwhat?\n"))
    assert host.boots(root)
    assert {name: value for name, value in host.snapshot(root).items() if name in old} == old
    report = (root / "var/lib/sparkfleet/rollback/last-report").read_text()
    assert "record.taking-back is damaged (line 4)" in report
    assert host.boots(root), "it is kept"


def test_a_report_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    root, old = armed(tmp_path)
    (root / "var/lib/sparkfleet/rollback/last-report/in the way").mkdir(parents=True)
    assert host.boots(root)
    assert host.snapshot(root) == old
    assert not list(root.glob("var/lib/sparkfleet/rollback/record.*"))


@pytest.mark.parametrize(("by", "stopped"), [("deploy", {"timer", "service"}), ("boot", {"timer", "service"})])
def test_nothing_tries_again_once_all_is_as_before(tmp_path: Path, by: str, stopped: set[str]) -> None:
    root, _ = armed(tmp_path)
    calls = root / "bin/calls"
    calls.write_text("")
    if by == "boot":
        assert host.boots(root)
    else:
        subprocess.run(host.command(root, "take-back"), check=True)
    found = {line.rpartition(".")[2] for line in calls.read_text().splitlines() if line.startswith("stop ")}
    assert found == stopped


def test_the_timers_own_service_is_not_stopped_by_itself(tmp_path: Path) -> None:
    root, old = armed(tmp_path)
    calls = root / "bin/calls"
    calls.write_text("")
    program = root / "var/lib/sparkfleet/rollback/program/take-back"
    sources = program.with_name("sparkhost") / "ssh" / "rollback.py"
    sources.write_text(sources.read_text().replace("/usr/sbin/sshd", str(root / "bin/sshd")))
    done = subprocess.run(["/bin/sh", str(program), "timer"], env=host.environment(root), check=False)
    assert (done.returncode, host.snapshot(root)) == (0, old)
    assert [line for line in calls.read_text().splitlines() if line.startswith("stop ")] == [
        "stop sparkfleet-rollback.timer"
    ]
