"""Units of work: what is ended as one, read from /proc with hostile names, and sorted by cgroup."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkhost.base import cgroups
from sparkhost.watchdog.cgroup import Charge
from sparkhost.watchdog.model import MIB, Candidate
from sparkhost.watchdog.process import Process, Processes, parse_stat
from sparkhost.watchdog.work import Preferences, candidates, place_of
from tests.unit.process_tables import HEX, process, shell


@pytest.mark.parametrize(
    ("cgroup", "kind", "name"),
    [
        ("/training.slice/job-1.service", "job", "job-1.service"),
        ("/training.slice/training-alice.slice/run.scope/inner", "job", "run.scope"),
        (f"/system.slice/docker-{HEX}.scope", "container", f"docker-{HEX}.scope"),
        (f"/system.slice/docker-{HEX}.scope/system.slice/ssh.service", "container", f"docker-{HEX}.scope"),
        (f"/docker/{HEX}", "container", HEX),
        (f"/machine.slice/libpod-{HEX}.scope/container", "container", f"libpod-{HEX}.scope"),
        (f"/machine.slice/libpod-conmon-{HEX}.scope", "system", f"libpod-conmon-{HEX}.scope"),
        ("/machine.slice/machine-build.scope/payload", "container", "machine-build.scope"),
        (
            "/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + HEX + ".scope",
            "container",
            f"cri-containerd-{HEX}.scope",
        ),
        ("/user.slice/user-1000.slice/session-3.scope", "session", "session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "session", "x.service"),
        ("/system.slice/ollama.service", "system", "ollama.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "system", "getty@tty1.service"),
        ("/init.scope", "system", "init.scope"),
        ("/", "process", ""),
        ("/made/by/hand", "process", "hand"),
    ],
)
def test_the_place_of_a_cgroup(cgroup: str, kind: str, name: str) -> None:
    place = place_of(cgroup)
    assert (place.kind, place.name) == (kind, name)
    assert cgroup.startswith(place.cgroup)


def by_roots(found: tuple[Candidate, ...]) -> dict[tuple[int, ...], Candidate]:
    return {tuple(root.pid for root in candidate.roots): candidate for candidate in found}


def listed(*processes: Process, **rest: object) -> dict[tuple[int, ...], Candidate]:
    return by_roots(candidates(processes, {}, {}, Preferences(), **rest))  # type: ignore[arg-type]


def test_in_a_login_the_work_is_ended_and_not_what_it_hangs_on() -> None:
    found = listed(
        process(10, 1, owner=0, name="sshd"),
        process(11, 10, name="sshd"),
        shell(12, 11),
        process(13, 12, 5, name="torchrun"),
        process(14, 13, 600),
        process(15, 13, 600),
        process(16, 12, 40, name="vim"),
    )
    work = {roots: candidate for roots, candidate in found.items() if not candidate.alone}
    assert {roots: c.size for roots, c in work.items()} == {(13,): 1205, (16,): 40}
    assert all(found[pid,].alone for pid in (10, 11, 12))


def test_windows_of_tmux_are_apart_and_tmux_stays() -> None:
    found = listed(
        process(20, 1, name="tmux: server", session=20),
        shell(21, 20),
        process(22, 21, 700),
        shell(23, 20),
        process(24, 23, 30, name="vim"),
    )
    assert found[22,].size == 700
    assert found[24,].size == 30
    assert found[20,].alone
    # Another multiplexer, whose name nobody knows, is known by the shells below it.
    assert listed(process(20, 1, name="zz"), shell(21, 20), process(22, 21, 9))[20,].alone


def test_a_job_that_opens_a_terminal_of_its_own_is_still_ended() -> None:
    found = listed(shell(30, 1), process(31, 30, 900), shell(32, 31), process(33, 31, 20))
    assert (found[31,].size, found[31,].alone) == (900, True)
    assert found[33,].size == 20


def test_a_shell_that_holds_much_is_ended_alone() -> None:
    found = listed(shell(40, 1, 800), process(41, 40, 1))
    assert (found[40,].size, found[40,].alone) == (800, True)


def test_a_program_that_calls_itself_sshd_gains_nothing() -> None:
    found = listed(shell(50, 1), process(51, 50, 900, name="sshd"), process(52, 51, 3))
    assert (found[51,].size, found[51,].protected) == (900, False)


def test_orphans_of_one_session_are_taken_together() -> None:
    found = listed(
        shell(60, 1), process(61, 1, 5, session=70), process(62, 1, 5, session=70), process(63, 1, 5, session=71)
    )
    assert found[61, 62].size == 10
    assert found[63,].size == 5


def test_a_circle_of_parents_ends() -> None:
    """A table is read while processes come and go: numbers may have been given away anew in between."""
    assert listed(process(1001, 1002, 5), process(1002, 1001, 5))


def test_a_unit_is_whole_and_shared_memory_counts_once() -> None:
    job = "/training.slice/a.service"
    inside = [process(n, 1, 10, cgroup=f"{job}/worker", shared=100, owner=1001) for n in (70, 71)]
    (plain,) = candidates(inside, {70: 7}, {}, Preferences())
    assert (plain.anonymous, plain.shared, plain.gpu, plain.owner) == (20, 100, 7, 1001)
    assert (plain.kind, plain.cgroup, plain.roots, plain.processes) == ("job", job, (), 2)
    # What lies in a tmpfs and is mapped by nobody shows in the charge only.
    (charged,) = candidates(inside, {}, {job: Charge(15, 900)}, Preferences())
    assert (charged.anonymous, charged.shared) == (15, 900)
    # What is mapped here and charged elsewhere is not given back by ending this one.
    (charged,) = candidates(inside, {}, {job: Charge(15, 30)}, Preferences())
    assert (charged.anonymous, charged.shared) == (15, 30)


@pytest.mark.parametrize(
    ("cgroup", "kept"),
    [
        ("/system.slice/ssh.service", True),
        ("/system.slice/system-ssh.slice/ssh@1-10.0.0.1:22-10.0.0.2:5.service", True),
        ("/system.slice/systemd-journald.service", True),
        ("/init.scope", True),
        ("/sparkfleet.slice/sparkfleet-watchdog.service", True),
        ("/system.slice/site.service", True),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", True),
        # Names that a user chose.
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/ssh.service", False),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/site.service", False),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/init.scope", False),
        ("/training.slice/systemd-x.service", False),
        (f"/system.slice/docker-{HEX}.scope/system.slice/ssh.service", False),
        ("/system.slice/ollama.service", False),
    ],
)
def test_what_is_protected(cgroup: str, kept: bool) -> None:
    owner = 0 if cgroup.startswith(("/system", "/init", "/sparkfleet")) else 1000
    inside = [process(80, 1, 9, cgroup=cgroup, owner=owner)]
    found = candidates(inside, {}, {}, Preferences(protect=("site.service",)))
    assert [candidate.protected for candidate in found] == [kept]


def test_what_root_has_marked() -> None:
    processes = [process(n, 1, 9, cgroup=f"/training.slice/{n}.service") for n in (1001, 1002, 1003)]
    found = candidates(
        processes, {}, {}, Preferences(prefer=("1003.*",)),
        omitted={"/training.slice/1001.service"}, avoided={"/training.slice/1002.service"},
    )  # fmt: skip
    assert [(c.protected, c.avoided, c.preferred) for c in found] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_the_watchdog_and_pid_1_are_nobodys_victims() -> None:
    found = listed(
        *(process(pid, parent, 5, cgroup="/") for pid, parent in ((1, 0), (90, 1), (91, 90), (92, 90))),
        never={91, 90, 1},
    )  # fmt: skip
    assert {roots for roots, candidate in found.items() if not candidate.protected} == {(92,)}


STAT = (
    "{pid} ({name}) S 1 {pid} 9 34816 9 4194304 100 0 0 0 1 2 0 0 20 0 1 0 4242 1000000 25000 18446744073709551615"
    " 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)


@pytest.mark.parametrize("name", ["python3", ") R 1", "a b", "x\n1 (y) Z 0", "((", "))", "\x1b[2J", "\xff", ""])
def test_a_hostile_name_is_only_a_name(name: str) -> None:
    stat = parse_stat(STAT.format(pid=77, name=name).encode("latin-1"))
    assert (stat.state, stat.parent, stat.session, stat.terminal, stat.start) == ("S", 1, 9, 34816, 4242)


def fixture(root: Path, pid: int, name: str, cgroup: bytes, anonymous: int) -> None:
    folder = root / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(STAT.format(pid=pid, name=name))
    (folder / "status").write_text(
        f"Name:\tx\nUid:\t1005\t1\t1\t1\nRssAnon:\t{anonymous} kB\nRssFile:\t9 kB\nRssShmem:\t7 kB\n"
    )
    (folder / "cgroup").write_bytes(cgroup)


def test_the_table_of_a_fixture(tmp_path: Path) -> None:
    fixture(tmp_path, 5, ") R 1", b"9:memory:/old\n0::/training.slice/j.service\n", 2048)
    fixture(tmp_path, 6, "gone", b"0::/\n", 1)
    (tmp_path / "6" / "stat").write_text("")
    (tmp_path / "self").mkdir()
    (only,) = Processes(tmp_path).table()
    assert (only.name, only.owner, only.anonymous, only.shared) == (") R 1", 1005, 2 * MIB, 7 * 1024)
    assert only.cgroup == "/training.slice/j.service"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"0::/a/b\n", "/a/b"),
        (b"1:name=systemd:/x\n0::/y\n", "/y"),
        (b"1:memory:/x\n", "/"),
        (b"0::/a\\040b\n", "/a\\040b"),
    ],
)
def test_the_cgroup_of_a_process(text: bytes, path: str) -> None:
    assert cgroups.parse(text) == path


def test_real_processes_of_this_machine() -> None:
    """A child with a hostile name and 64 MiB of its own is seen as the kernel has it."""
    code = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') R 1 (x\\n', 0, 0, 0);"
        "kept = bytearray(b'x') * (64 << 20); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (seen,) = (p for p in Processes(Path("/proc")).table() if p.pid == child.pid)
        assert seen.name == ") R 1 (x\n"
        assert seen.parent == os.getpid()
        assert 64 * MIB <= seen.anonymous < 200 * MIB
        assert Processes(Path("/proc")).start_of(child.pid) == seen.start
        child.communicate()
    assert Processes(Path("/proc")).start_of(child.pid) is None
