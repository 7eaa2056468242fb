"""Reading and running with an end: of real files, FIFOs, devices and processes. And that nothing goes round it."""

from __future__ import annotations

import ast
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkhost.base.bounded import MIB, Late, TooLarge, call, read, try_each
from sparkhost.base.resource import Failed

HOST = Path(__file__).resolve().parents[2] / "files" / "host" / "sparkhost"


@pytest.fixture
def within() -> Iterator[None]:
    """A test that blocks fails instead of standing still."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("blocked for 20 s"))
    signal.alarm(20)
    yield
    signal.alarm(0)


pytestmark = pytest.mark.usefixtures("within")


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def await_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while not is_gone(pid):
        assert time.monotonic() < until, f"process {pid} lives"
        time.sleep(0.02)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * 1000)
    assert read(path, 1000) == b"a" * 1000
    with pytest.raises(TooLarge, match=str(path)):
        read(path, 999)
    assert read(Path("/proc/self/status"))


def test_100_gib_of_holes_fill_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(100 * 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLarge):
        read(tmp_path / "sparse", MIB)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB


def test_what_is_no_regular_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero", "."):
        with pytest.raises(Failed, match="is not a regular file"):
            read(tmp_path / name)
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert read(tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links"):
        read(tmp_path / "link", follow=False)


def test_a_program_is_given_its_input_and_heard_out() -> None:
    given = "ä\udcff" + "x" * 300_000
    done = call(["sh", "-c", "cat; echo no >&2; exit 3"], seconds=10, given=given)
    assert (done.returncode, done.stdout, done.stderr) == (3, given, "no\n")
    # One that does not listen is no mistake of ours: its exit code tells.
    assert call(["sh", "-c", "exit 4"], seconds=10, given=given).returncode == 4


def test_a_program_that_never_stops_talking_is_ended() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLarge, match="yes: printed more than 1024 KiB"):
        call(["yes"], seconds=10, limit=MIB)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_a_program_that_is_late_is_ended_with_all_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Late, match=r"no answer within 0\.5 s"):
        call(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], seconds=0.5)
    assert time.monotonic() - started < 5
    await_gone(int((tmp_path / "pid").read_text()))


def test_a_child_that_keeps_the_pipe_open_holds_nobody_up(tmp_path: Path) -> None:
    started = time.monotonic()
    done = call(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; echo done"], seconds=30)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert time.monotonic() - started < 10
    await_gone(int((tmp_path / "pid").read_text()))


def test_a_program_that_is_missing_or_broken_is_one_line_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no-such-program: no such command on this host"):
        call(["no-such-program"], seconds=5)
    broken = tmp_path / "half-removed"
    broken.touch(mode=0o755)
    with pytest.raises(Failed, match=r"half-removed cannot be run .*: is its package whole"):
        call([str(broken)], seconds=5)


def test_what_does_not_come_back_costs_itself_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stalled")
    (tmp_path / "fine").write_text("yes")
    (tmp_path / "other").write_text("no")
    names = ["fine", "stalled", "other", "absent", "fine"]
    # open(2) of a FIFO that nobody writes to does not return.
    found = list(try_each(names, lambda name: "yes" in (tmp_path / name).read_text(), seconds=0.3))
    assert found == [("fine", True), ("stalled", None), ("other", False), ("absent", None), ("fine", True)]
    assert (
        list(try_each(["stalled"] * 3, lambda name: bool((tmp_path / name).read_text()), seconds=0.1, stalls=1))
        == [("stalled", None)] * 3
    )
    assert list(try_each([], bool)) == []
    assert list(try_each(range(500), lambda number: number % 2 == 0)) == [(n, n % 2 == 0) for n in range(500)]


def test_a_child_that_hangs_does_not_hold_the_answer_back(tmp_path: Path) -> None:
    """It keeps none of the parent's descriptors 0 to 2: whoever reads the parent's output hears its end."""
    os.mkfifo(tmp_path / "stalled")
    code = (
        "import sys, signal, os\n"
        f"sys.path.insert(0, {str(HOST.parent)!r})\n"
        "from sparkhost.base import bounded\n"
        "bounded.os.kill = lambda *_: None\n"  # as if no signal reached it
        f"print(list(bounded.try_each(['{tmp_path}/stalled'], lambda p: bool(open(p).read()), seconds=0.2)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=False)
    assert "None" in done.stdout, done.stderr
    threading.Thread(target=lambda: (tmp_path / "stalled").write_text("x"), daemon=True).start()


# What opens or starts something without `bounded`, and why that is no way round it. By module, and function where one
# of several is meant. Whole packages: watchdog, observer and launcher have readers of their own,
# which must not import so much. The tools
# (tools, smoke) and the programs `spark-…` run as the user who calls them.
OTHERS = ("watchdog", "observer", "launcher", "sampler", "tools", "smoke")
ALLOWED = {
    "base.bounded": "the reader itself",
    "base.small_files": "the reader of watchdog and launcher, which import little: O_NONBLOCK, and its own bound",
    "base.elf.opened": "O_NONBLOCK, regular files only; reads parts of at most MOST_BYTES",
    "base.files.copy_file": "writes",
    "base.files.sync_directory": "a directory",
    "base.files.digest": "a file of root's below /opt, in pieces of 1 MiB",
    "base.pipes": "/dev/null",
    "base.deploylock.held": "root's own file, O_NOFOLLOW, mode 0600",
    "ssh.guard": "of the take-back, which must work without any module that is not its own",
    "ssh.rollback": "the same",
    "ssh.unproved": "the same",
    "base.holds": "files of units and of sshd, which are root's",
    "swap.swap.swapoff": "swapoff(8) takes as long as it takes: it is interrupted when memory runs short",
    "stack.build.alone": "a lock of root's",
    "stack.build.take": "a wheel that was uploaded: copied before it is hashed, no larger than the lock says",
    "stack.hashes": "files of a release, root's, in pieces; a pipe to a process of this module",
    "stack.verify": "files of a release, root's",
    "uv.resources.unpack": "a wheel that was uploaded, in pieces of 1 MiB, and writes",
    "vllm_source.shell": "a build's commands, which take hours: an account of their own, a group that is killed",
    "vllm_source.install": "an archive of the build's account, member by member, with its own bounds",
    "vllm_source.run": "locks and logs of the service's own",
    "vllm_source.cli": "runs as the user who calls it",
    "vllm_container.cli": "runs as the user who calls it",
}
READS = {"read_text", "read_bytes", "open", "popen", "system", "fork", "Popen", "run", "check_output", "check_call"}
MODULES_THAT_READ = {"subprocess", "os", "io", "tarfile", "builtins"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(HOST).with_suffix("").parts) if HOST in path.parents else path.stem


def is_allowed(way: str) -> bool:
    return any(f"{way}.".startswith(f"{name}.") for name in ALLOWED)


def ways_round(path: Path) -> set[str]:
    """`wing.module.function` of each call that opens a file or starts a process."""
    found: set[str] = set()

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef) and not function:
            function = node.name
        if isinstance(node, ast.Call) and reads(node.func):
            found.add(f"{name_of(path)}.{function}")
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(path.read_text()), "")
    return found


def reads(called: ast.expr) -> bool:
    if isinstance(called, ast.Name):
        return called.id == "open"
    if not isinstance(called, ast.Attribute) or called.attr not in READS:
        return False
    owner = called.value.id if isinstance(called.value, ast.Name) else ""
    if owner == "bounded":
        return False
    # `shell.run`, `self.run`: ours; `subprocess.run` is not.
    return called.attr in ("read_text", "read_bytes", "open") or owner in MODULES_THAT_READ


def test_nothing_else_opens_a_file_or_starts_a_process() -> None:
    paths = [path for path in HOST.rglob("*.py") if path.relative_to(HOST).parts[0] not in OTHERS]
    found = {way for path in paths for way in ways_round(path)}
    unknown = sorted(way for way in found if not is_allowed(way))
    assert unknown == [], "use sparkhost.base.bounded, or say in ALLOWED why not"
    assert [name for name in ALLOWED if not any(f"{way}.".startswith(f"{name}.") for way in found)] == []


def test_the_search_for_ways_round_finds_each_kind(tmp_path: Path) -> None:
    for number, way in enumerate(
        ("open('x')", "p.open()", "p.read_text()", "Path('x').read_bytes()", "subprocess.run([])", "os.open('x', 0)",
         "os.popen('x')", "subprocess.Popen([])")
    ):  # fmt: skip
        path = tmp_path / f"m{number}.py"
        path.write_text(f"def f():\n    return {way}\n")
        assert ways_round(path) == {f"m{number}.f"}, way
    (tmp_path / "fine.py").write_text("def f():\n    return bounded.read(p), run('x'), bounded.read_text(p)\n")
    assert ways_round(tmp_path / "fine.py") == set()
