"""Victims that try to get away: real processes that change parent, session, name and cgroup when asked to end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparkhost.watchdog.act import Executioner, Hunt, lineage
from sparkhost.watchdog.cgroup import MOST_WALKED, Cgroups
from sparkhost.watchdog.model import Candidate, Member
from sparkhost.watchdog.process import parse_stat
from sparkhost.watchdog.work import Preferences, candidates
from tests.unit.victims import BESIDE, PROC, SIBLING, UID, cgroup_mount, flees, made_cgroups, started, unused, victim_of
from tests.unit.watchdog_host import until

LOGIN = f"/user.slice/user-{UID}.slice"


def executioner(root: Path = Path("/nonexistent")) -> Executioner:
    return Executioner(PROC, Cgroups(root), list(lineage(PROC, os.getpid())))


def is_there(child: subprocess.Popen[str]) -> list[int]:
    """The processes that a program still has, whoever is their parent by now."""
    assert isinstance(child.args, list)
    mark, found = str(child.args[-1]), []
    for pid in PROC.numbers():
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in text and PROC.start_of(pid) is not None:
            found.append(pid)
    return found


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rss(pid: int) -> int:
    return parse_stat(PROC.read(pid, "stat")).rss


def end(act: Executioner, hunt: Hunt, first: int) -> None:
    """Asks a victim to end, waits until its first process has fled, and then kills who is left."""
    act.press(hunt)
    until(lambda: PROC.start_of(first) is None)
    assert act.alive(hunt) > 0, "it is elsewhere, and not gone"
    hunt.stage = "KILL"

    def is_over() -> bool:
        act.press(hunt)
        return act.alive(hunt) == 0

    until(is_over)


@pytest.mark.parametrize("setsid", [True, False])
@pytest.mark.parametrize("subreaper", [True, False])
def test_who_forks_and_leaves_is_followed(setsid: bool, subreaper: bool) -> None:
    with started(flees(setsid=setsid, subreaper=subreaper)) as child:
        (first,) = set(is_there(child)) - ({child.pid} if subreaper else set())
        end(executioner(), Hunt(victim_of(first)), first)
        # Who adopted the fled one is no part of the victim; it keeps it as a zombie, or init has taken it.
        assert is_there(child) == ([child.pid] if subreaper else [])


@pytest.mark.parametrize("terminal", [True, False])
def test_who_leaves_a_copy_with_its_own_parent_is_followed(terminal: bool) -> None:
    """Also where that is a shell: what somebody else starts from there begins small."""
    with started(SIBLING.format(uid=UID, terminal=terminal)) as child:
        (shell,) = children_of(child.pid)
        until(lambda: [pid for pid in children_of(shell) if rss(pid) >= 80 << 20])
        (first,) = children_of(shell)
        end(executioner(), Hunt(victim_of(first)), first)
        assert set(is_there(child)) == {child.pid, shell}


def test_who_goes_to_another_cgroup_is_followed() -> None:
    """The user's own tree, as systemd delegates it. Only what is in that user's slice is searched."""
    top = unused()
    app, other = (f"{top}{LOGIN}/user@{UID}.service/{name}" for name in ("app.slice/a.scope", "init.scope"))
    with made_cgroups(app, other) as mount:
        for name in (app, other):
            os.chown(mount / name[1:] / "cgroup.procs", UID, UID)
        os.chown(mount / f"{top}{LOGIN}/user@{UID}.service/cgroup.procs"[1:], UID, UID)
        with started(flees(cgroups=(str(mount / other[1:]),))) as child:
            (mount / app[1:] / "cgroup.procs").write_text(str(child.pid))
            victim = replace(victim_of(child.pid), cgroup=app.removeprefix(top))
            end(executioner(mount / top[1:]), Hunt(victim), child.pid)
            assert not is_there(child)


@pytest.fixture
def crowd() -> Iterator[tuple[Path, str]]:
    """More cgroups below a user's slice than are walked."""
    top = unused()
    many = [f"{top}{LOGIN}/user@{UID}.service/{number}" for number in range(MOST_WALKED + 50)]
    with made_cgroups(*many) as mount:
        yield mount, top


def place(mount: Path, region: str, near: int, far: int) -> None:
    """Moves one process to where a walk of the region gets, one to where it does not: what a directory lists last."""
    folder = mount / f"{region}/user@{UID}.service"[1:]
    names = [name for name in os.listdir(folder) if name.isdigit()]  # noqa: PTH208 - its order is meant
    for name, pid in ((names[0], near), (names[-1], far)):
        (folder / name / "cgroup.procs").write_text(str(pid))
    assert Cgroups(mount).members(region) == [near]


def test_cgroups_without_number_hide_nobody(crowd: tuple[Path, str]) -> None:
    mount, top = crowd
    sleep = "print(flush=True); import time; time.sleep(600)"
    with started(sleep) as other, started(flees()) as child:
        place(mount, f"{top}{LOGIN}", other.pid, child.pid)
        end(executioner(mount / top[1:]), Hunt(replace(victim_of(child.pid), cgroup=f"{LOGIN}/x")), child.pid)
        assert not is_there(child)
        assert other.poll() is None
    with started(sleep) as near, started(sleep) as far:
        place(mount, f"{top}{LOGIN}", near.pid, far.pid)
        act, hunt = executioner(mount), Hunt(Candidate("k", "n", "container", f"{top}{LOGIN}"))
        act.press(hunt)
        assert near.wait(20) == -signal.SIGTERM
        assert act.alive(hunt) == 1, "there is somebody whom the walk did not find"
        hunt.stage = "KILL"
        act.press(hunt)
        assert far.wait(20) == -signal.SIGKILL
        assert act.alive(hunt) == 0


def test_a_whole_unit_is_followed_out_of_it() -> None:
    """A container without root is in its user's tree: its processes can be moved out of it."""
    top = unused()
    inside, outside = (f"{top}{LOGIN}/{name}" for name in ("docker-0123456789ab.scope", "session-1.scope"))
    with made_cgroups(inside, outside) as mount, started("print(flush=True); import time; time.sleep(600)") as child:
        (mount / inside[1:] / "cgroup.procs").write_text(str(child.pid))
        act, hunt = executioner(mount), Hunt(Candidate("k", "n", "container", inside))
        assert act.alive(hunt) == 1
        (mount / outside[1:] / "cgroup.procs").write_text(str(child.pid))
        assert act.alive(hunt) == 1
        assert act.press(hunt) == 1
        assert child.wait(20) == -signal.SIGTERM
        assert act.alive(hunt) == 0


def test_what_others_of_the_same_user_start_meanwhile_is_not_the_victims() -> None:
    with started(flees(beside=BESIDE)) as child:
        (other,) = children_of(child.pid)
        start = PROC.start_of(other)
        assert start is not None
        act = executioner()
        # The victim is the first one alone: what it has started before stays, and goes on starting others.
        hunt = Hunt(replace(victim_of(child.pid), alone=True))
        act.press(hunt)
        until(lambda: PROC.start_of(child.pid) is None)
        for _ in range(10):
            assert Member(other, start) not in act.members(hunt)
            act.press(hunt)
        assert PROC.start_of(other) == start


def test_parts_are_pressed_and_followed_as_one() -> None:
    sleep = "print(flush=True); import time; time.sleep(600)"
    with started(sleep) as first, started(sleep) as second, started(sleep) as other:
        parts = tuple(replace(victim_of(child.pid), key=str(child.pid)) for child in (first, second))
        hunt = Hunt(Candidate("all", "all", "session", "/", parts=parts))
        act = executioner()
        assert act.alive(hunt) == 2
        first.kill()
        first.wait(20)
        assert act.alive(hunt) == 1
        assert act.press(hunt) == 1
        assert second.wait(20) == -signal.SIGTERM
        assert act.alive(hunt) == 0
        assert other.poll() is None


class Unreadable:
    """/proc in which one process cannot be read: an error that nobody has thought of."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.proc = PROC.proc

    def __getattr__(self, name: str) -> object:
        real = getattr(PROC, name)

        def call(*arguments: object) -> object:
            if arguments and arguments[0] == self.pid:
                raise RuntimeError("a mistake of ours")
            return real(*arguments)

        return call


def test_an_error_with_one_process_costs_that_one() -> None:
    sleep = "print(flush=True); import time; time.sleep(600)"
    with started(sleep) as first, started(sleep) as second:
        hunt = Hunt(victim_of(first.pid, second.pid))
        act = Executioner(Unreadable(first.pid), Cgroups(Path("/nonexistent")), ())  # type: ignore[arg-type]
        assert act.press(hunt) == 1
        assert second.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("stage", ["TERM", "KILL"])
def test_the_daemon_of_a_step_of_slurm_lives(stage: str) -> None:
    scope = unused("_slurmstepd.scope")
    names = [f"{scope}/{name}" for name in ("system", "job_7/step_0/slurm", "job_7/step_0/user/task_0")]
    sleep = "print(flush=True); import time; time.sleep(600)"
    with made_cgroups(*names) as mount, started(sleep) as infinity, started(sleep) as step, started(sleep) as task:
        for name, child in zip(names, (infinity, step, task), strict=True):
            (mount / name[1:] / "cgroup.procs").write_text(str(child.pid))
        table = [process for child in (infinity, step, task) if (process := PROC.process(child.pid))]
        found = {c.name: c for c in candidates(table, {}, {}, Preferences())}
        job = found["slurm job 7"]
        assert found[scope[1:]].protected
        assert [part.freezer for part in job.parts] == [f"{scope}/job_7/step_0/user"]
        act, hunt = executioner(mount), Hunt(job, stage)  # type: ignore[arg-type]
        act.press(hunt)
        task.wait(20)
        until(lambda: act.alive(hunt) == 0)
        assert (infinity.poll(), step.poll()) == (None, None)


MOVES = """
import os, signal, sys, time
os.setgid({uid})
os.setuid({uid})
kept = bytearray(b"x") * (64 << 20)
def move(*_):
    with open({target!r}, "w") as file:
        file.write("0")
signal.signal(signal.SIGUSR1, move)
print(flush=True)
while True:
    time.sleep(600)
"""


def test_nobody_is_protected_by_a_move_to_the_place_of_the_users_systemd() -> None:
    """The move is the kernel's to allow, as the user; the list is made of what /proc says then."""
    mount = cgroup_mount()
    manager = f"{LOGIN}/user@{UID}.service"
    names = [f"{manager}/{name}" for name in ("init.scope", "app.slice/run-1.scope")]
    with made_cgroups(*names):
        for name in (manager, *names):
            os.chown(mount / name[1:] / "cgroup.procs", UID, UID)
        with started(MOVES.format(uid=UID, target=str(mount / names[0][1:] / "cgroup.procs"))) as child:
            (mount / names[1][1:] / "cgroup.procs").write_text(str(child.pid))
            child.send_signal(signal.SIGUSR1)
            until(lambda: PROC.cgroup_of(child.pid) == names[0])
            seen = PROC.process(child.pid)
            assert seen is not None
            (found,) = candidates([seen], {}, {}, Preferences())
            assert (found.protected, found.owner) == (False, UID)
            assert found.anonymous >= 64 << 20


STARTED_BY_INIT = """
import os, time
if os.fork():
    os._exit(0)
with open({cgroup!r}, "w") as file:
    file.write("0")
os.setgid({uid})
os.setuid({uid})
print(flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("place", "followed"), [("init.scope", False), ("app.slice/a.scope", True)])
def test_a_login_of_the_victims_user_may_begin_meanwhile(place: str, followed: bool) -> None:
    cgroup = f"{LOGIN}/user@{UID}.service/{place}"
    sleep = f"import os, time; os.setuid({UID}); print(flush=True); time.sleep(600)"
    with made_cgroups(cgroup) as mount, started(sleep) as victim:
        act, hunt = executioner(mount), Hunt(replace(victim_of(victim.pid), cgroup=cgroup))
        assert act.alive(hunt) == 1
        procs = mount / cgroup[1:] / "cgroup.procs"
        with started(STARTED_BY_INIT.format(cgroup=str(procs), uid=UID)) as child:
            (other,) = is_there(child)
            until(lambda: parse_stat(PROC.read(other, "stat")).parent == 1)
            hunt.next_search = 0
            assert (other in [member.pid for member in act.members(hunt)]) == followed
