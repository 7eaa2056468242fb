"""Units of work on hosts that run more than logins: who is protected, what is divided, what counts, what stops it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkhost.watchdog.cgroup import Cgroups, Charge
from sparkhost.watchdog.model import GIB, MIB, Candidate, Member
from sparkhost.watchdog.owners import Range, account_of, is_person, parse_subuid, read_ranges
from sparkhost.watchdog.process import Process
from sparkhost.watchdog.work import Preferences, candidates, place_of, whole_units
from tests.unit.test_watchdog_work import process, shell

HEX = "0123456789abcdef" * 4
POD = "pod0a1b2c3d-0000-1111-2222-333344445555"
SLURM = "/system.slice/spark1_slurmstepd.scope"
LOGIN = "/user.slice/user-1000.slice"
SESSION = f"{LOGIN}/session-3.scope"
MANAGER = f"{LOGIN}/user@1000.service"


def listed(*processes: Process, charges: dict[str, Charge] | None = None, **rest: object) -> list[Candidate]:
    return list(candidates(processes, {}, charges or {}, Preferences(), **rest))  # type: ignore[arg-type]


def by_pids(found: list[Candidate]) -> dict[tuple[int, ...], Candidate]:
    return {tuple(root.pid for root in candidate.roots): candidate for candidate in found}


@pytest.mark.parametrize(
    ("cgroup", "kind", "unit", "name"),
    [
        (f"{SLURM}/job_7/step_batch/user/task_0", "job", f"{SLURM}/job_7", "slurm job 7"),
        ("/system.slice/slurmstepd.scope/job_12/step_0/user/task_3", "job", None, "slurm job 12"),
        (f"{SLURM}/job_7/step_batch/slurm", "system", SLURM, "spark1_slurmstepd.scope"),
        (f"{SLURM}/job_7/step_extern/slurm", "system", SLURM, "spark1_slurmstepd.scope"),
        (f"{SLURM}/system", "system", SLURM, "spark1_slurmstepd.scope"),
        # Somebody else's names.
        (f"{LOGIN}/x_slurmstepd.scope/job_7/step_0/user", "session", None, "x_slurmstepd.scope"),
        (f"/kubepods/burstable/{POD}/{HEX}", "container", f"/kubepods/burstable/{POD}/{HEX}", HEX),
        (f"/kubepods/burstable/{POD}", "container", f"/kubepods/burstable/{POD}", POD),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b.slice/x",
            "container",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b.slice",
            "pod0a1b",
        ),
        ("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator", "container", None, None),
        ("/system.slice/containerd.service", "system", None, "containerd.service"),
    ],
)
def test_the_place_of_what_a_manager_runs(cgroup: str, kind: str, unit: str | None, name: str | None) -> None:
    place = place_of(cgroup)
    assert place.kind == kind
    assert unit in (None, place.cgroup)
    assert name in (None, place.name)


def test_a_job_of_slurm_is_one_unit_and_its_daemons_are_none_of_it() -> None:
    job = f"{SLURM}/job_7"
    found = listed(
        process(10, 1, 2, cgroup=f"{SLURM}/system", owner=0, name="slurmstepd"),
        process(11, 1, 7, cgroup=f"{job}/step_batch/slurm", owner=0, name="slurmstepd"),
        process(12, 11, 3, cgroup=f"{job}/step_batch/user/task_0", owner=1777),
        process(13, 12, 900, cgroup=f"{job}/step_batch/user/task_0", owner=1777, shared=8),
        process(14, 1, 999, cgroup=f"{job}/step_extern/user/task_0", owner=0, name="sleep"),
        process(15, 1, 60, cgroup=f"{SLURM}/job_8/step_0/user/task_0", owner=1778),
        charges={job: Charge(800, 30, limit=4096)},
    )
    units = {c.name: c for c in found}
    assert set(units) == {"spark1_slurmstepd.scope", "slurm job 7", "slurm job 8"}
    assert [r.pid for r in units["spark1_slurmstepd.scope"].roots] == [10, 11]
    assert units["spark1_slurmstepd.scope"].protected
    seven = units["slurm job 7"]
    # Root's sleep is in every job, and no owner.
    assert (seven.kind, seven.owner, seven.promise, seven.cgroup) == ("job", 1777, 4096, job)
    assert (seven.anonymous, seven.shared, seven.first) == (800, 30, Member(12, 120))
    step = f"{job}/step_batch/user"
    assert [(part.cgroup, part.freezer) for part in seven.parts] == [(step, step)]
    assert (seven.freezer, units["slurm job 8"].freezer) == (step, f"{SLURM}/job_8/step_0/user")
    (two,) = listed(*(process(n, 1, 9, cgroup=f"{job}/step_{n}/user/task_0") for n in (0, 1)))
    steps = [f"{job}/step_{n}/user" for n in (0, 1)]
    assert (two.freezer, [part.freezer for part in two.parts]) == ("", steps), "the job's own cgroup has the daemons"


@pytest.mark.parametrize(
    "unit", ["slurmd", "slurmctld", "munge", "sackd", "containerd", "docker", "k3s", "kubelet", "crio", "libvirtd"]
)
def test_managers_of_others_work_are_protected_up_to_a_size(unit: str) -> None:
    cgroup = f"/system.slice/{unit}.service"
    small, grown = (
        listed(process(10, 1, size, cgroup=cgroup, owner=0), process(11, 10, GIB // 2, cgroup=cgroup, owner=0))
        for size in (3 * GIB, 40 * GIB)
    )
    assert [c.protected for c in small] == [True]
    assert {(c.protected, c.kind): [r.pid for r in c.roots] for c in grown} == {
        (True, "system"): [11],
        (False, "system"): [10],
    }


def test_what_cron_has_started_is_its_owners_and_cron_stays() -> None:
    cron = "/system.slice/cron.service"
    found = by_pids(
        listed(
            process(10, 1, 2, cgroup=cron, owner=0, name="cron", session=10),
            process(11, 10, 2, cgroup=cron, owner=0, name="cron", session=10),
            process(12, 11, 1, cgroup=cron, owner=1001, name="sh", session=12),
            process(13, 12, 95 * GIB, cgroup=cron, owner=1001, session=12),
            process(14, 10, 2, cgroup=cron, owner=0, name="cron", session=10),
            process(15, 14, 400, cgroup=cron, owner=1002, session=15),
            # It forked and left: PID 1 is its parent, as it is cron's.
            process(16, 1, 300, cgroup=cron, owner=1003, name="cron", session=16),
        )
    )
    assert found[10, 11, 14].protected
    work = {pids: c for pids, c in found.items() if not c.protected}
    assert {pids: (c.owner, c.kind) for pids, c in work.items()} == {
        (12,): (1001, "session"),
        (15,): (1002, "session"),
        (16,): (1003, "session"),
    }
    assert found[12,].size == 95 * GIB + 1
    # To freeze the unit would stop cron and everybody's.
    assert {c.freezer for c in found.values()} == {""}


def test_a_login_without_logind_is_no_part_of_sshd() -> None:
    ssh = "/system.slice/ssh.service"
    found = by_pids(
        listed(
            process(10, 1, 5, cgroup=ssh, owner=0, name="sshd"),
            process(11, 10, 5, cgroup=ssh, owner=0, name="sshd"),
            process(12, 11, 5, cgroup=ssh, name="sshd"),
            shell(13, 12, 4, cgroup=ssh),
            process(14, 13, 60 * GIB, cgroup=ssh),
        )
    )
    assert found[10, 11].protected
    assert (found[14,].protected, found[14,].alone, found[14,].size) == (False, False, 60 * GIB)
    assert all(found[pid,].alone for pid in (12, 13))


def test_many_logins_without_logind_cost_sshd_nothing() -> None:
    """300 of them hold more than its own processes may: the listener is spared first, and nobody's shell is lost."""
    ssh = "/system.slice/ssh.service"
    logins = [
        one
        for n in range(300)
        for one in (
            process(1000 + n, 10, 5 * MIB, cgroup=ssh, owner=0, name="sshd"),
            shell(2000 + n, 1000 + n, 5 * MIB, cgroup=ssh, owner=1000 + n),
        )
    ]
    found = by_pids(listed(process(10, 1, 6 * MIB, cgroup=ssh, owner=0, name="sshd"), *logins))
    (kept,) = (c for c in found.values() if c.protected)
    assert 10 in [root.pid for root in kept.roots]
    assert all(found[2000 + n,].alone for n in range(300))


def test_of_the_place_of_a_users_systemd_only_the_manager_is_protected() -> None:
    init = f"{MANAGER}/init.scope"
    found = by_pids(
        listed(
            process(10, 1, 9, cgroup=init, name="systemd"),
            process(11, 10, 2, cgroup=init, name="(sd-pam)"),
            process(12, 10, 70, cgroup=init, name="(sd-pam)"),
            process(13, 1, 80, cgroup=init, name="systemd"),
            process(14, 900, 90, cgroup=init, name="systemd"),
            process(15, 1, 50, cgroup=f"{MANAGER}/app.slice/init.scope", name="systemd"),
        )
    )
    assert {pids for pids, c in found.items() if c.protected} == {(10,), (11,)}
    (large,) = listed(process(10, 1, 2 * GIB, cgroup=init, name="systemd"))
    assert not large.protected


def test_too_many_anchors_are_none() -> None:
    """Of what a login may hang on only so much is spared as logins need: the smallest, so that the shell is."""
    login = [process(10, 1, 5 * MIB, owner=0, name="sshd"), shell(11, 10, 8 * MIB)]
    hogs = [process(pid, 11, 200 * MIB, name="tmux: server") for pid in range(100, 120)]
    found = by_pids(listed(*login, *hogs))
    assert found[11,].alone
    work = [c for c in found.values() if not c.alone]
    assert len(work) >= 15
    assert sum(c.size for c in found.values() if c.alone) <= GIB + 5 * MIB
    # Spread over logins they are one person's all the same.
    spread = [
        process(pid, 1, 200 * MIB, name="sshd", cgroup=f"{LOGIN}/session-{pid}.scope", session=pid)
        for pid in range(100, 120)
    ]
    assert len([c for c in listed(*spread) if not c.alone]) >= 15


def test_too_large_an_anchor_is_work_with_all_that_hangs_on_it() -> None:
    found = by_pids(
        listed(
            process(10, 1, 2 * GIB, name="tmux: server", session=10),
            shell(11, 10),
            process(12, 11, 70),
            process(20, 1, 9 * MIB, name="tmux: server", session=20),
            shell(21, 20),
            process(22, 21, 80),
        )
    )
    assert (found[10,].alone, found[10,].processes, found[10,].size) == (False, 3, 2 * GIB + 70)
    assert (found[20,].alone, found[21,].alone, found[22,].size) == (True, True, 80)


def test_what_stops_a_unit_and_nobody_else() -> None:
    inside = [
        process(10, 1, 9, cgroup="/training.slice/a.service"),
        process(11, 1, 9, cgroup=f"/system.slice/docker-{HEX}.scope"),
        process(12, 1, 9, cgroup="/system.slice/ollama.service", owner=0),
        process(13, 1, 9, cgroup=SESSION),
        process(14, 1, 9, cgroup=f"{MANAGER}/user.slice/libpod-{HEX}.scope"),
        process(15, 1, 9, cgroup="/user.slice/user-0.slice/session-1.scope", owner=0),
        process(16, 1, 9, cgroup="/user.slice/user-1005.slice/session-2.scope", owner=1005),
        process(17, 1, 9, cgroup="/system.slice/ssh.service", owner=0),
        process(18, 1, 9, cgroup="/"),
        process(19, 1, 9, cgroup="/user.slice/user-1006.slice/session-8.scope", owner=1006),
        process(20, 1, 9, cgroup="/user.slice/user-1006.slice/session-9.scope", owner=1006),
    ]
    found = listed(*inside, spared={1005}, never={20})
    assert {c.freezer for c in found if c.cgroup.startswith("/user.slice/user-1006")} == {""}, "the watchdog is there"
    assert {c.cgroup: c.freezer for c in found if c.freezer} == {
        "/training.slice/a.service": "/training.slice/a.service",
        f"/system.slice/docker-{HEX}.scope": f"/system.slice/docker-{HEX}.scope",
        "/system.slice/ollama.service": "/system.slice/ollama.service",
        SESSION: LOGIN,
        f"{MANAGER}/user.slice/libpod-{HEX}.scope": LOGIN,
    }


def test_what_was_promised_and_since_when() -> None:
    job = "/training.slice/spark-job-1000-ab.service"
    inside = [process(30, 1, 9, cgroup=job), process(31, 30, 9, cgroup=f"{job}/inner", start=7)]
    (found,) = listed(*inside, charges={job: Charge(1, 1, limit=60 * GIB)})
    assert (found.promise, found.first) == (60 * GIB, Member(31, 7))
    (service,) = listed(
        process(30, 1, 9, cgroup="/system.slice/x.service"),
        charges={"/system.slice/x.service": Charge(1, 1, limit=GIB)},
    )
    assert service.promise is None, "a limit of a service was promised to nobody's job"


def test_the_limit_of_a_cgroup(tmp_path: Path) -> None:
    for name, text in (("a", "4096\n"), ("b", "max\n"), ("c", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory.stat").write_text("anon 5\nfile 6\nshmem 7\n")
        if text:
            (tmp_path / name / "memory.max").write_text(text)
    assert [Cgroups(tmp_path).charge(name) for name in "abc"] == [Charge(5, 7, limit=4096), Charge(5, 7), Charge(5, 7)]


def test_an_orphaned_engine_a_worker_and_a_build_are_three_units() -> None:
    """As `ps` showed them on a host whose memory nobody seemed to hold."""
    docker, build = "/system.slice/docker-0000000000000000.scope", "/training.slice/spark-job-1001-ab12cd34.service"
    session = "/user.slice/user-1001.slice/session-7.scope"
    compilers = [process(50200 + n, 50100, 4 * GIB, owner=1001, cgroup=build, name="cicc") for n in range(20)]
    found = listed(
        process(41022, 1, 104277 * MIB, owner=1001, cgroup=session, name="VLLM::EngineCor"),
        process(41023, 1, 9 * GIB, owner=0, cgroup=docker, name="VLLM::Worker_TP"),
        process(50100, 41001, MIB, owner=1001, cgroup=build, name="ninja"),
        *compilers,
    )
    assert {(c.kind, c.processes, c.size // GIB, c.protected, c.alone) for c in found} == {
        ("session", 1, 101, False, False),
        ("container", 1, 9, False, False),
        ("job", 21, 80, False, False),
    }


# What is shown, and what is held.


def logins(*shown: tuple[int, int], **rest: object) -> list[Process]:
    """Programs of one user, each in a login of its own, with so much anonymous and shared memory shown."""
    return [
        process(n, 1, anonymous, shared=shared, session=n, cgroup=f"{LOGIN}/session-{n}.scope", **rest)
        for n, (anonymous, shared) in enumerate(shown, 10)
    ]


def test_a_segment_that_four_have_mapped_counts_once() -> None:
    sharers = logins(*[(MIB, 38 * GIB)] * 4)
    found = listed(*sharers, charges={LOGIN: Charge(4 * MIB, 38 * GIB)})
    assert [c.shared for c in found] == [38 * GIB // 4] * 4
    # Of others, who are charged with nothing of it, it counts for nothing; without any charge, by the host's figure.
    assert [c.shared for c in listed(*sharers, charges={LOGIN: Charge(4 * MIB, 0)})] == [0] * 4
    assert [c.shared for c in listed(*sharers, shmem=38 * GIB)] == [38 * GIB // 4] * 4


def test_decoys_are_worth_what_they_cost() -> None:
    """One memfd of 32 MiB, mapped 64 times; and a family of 64 that has forked with 32 MiB."""
    charge = Charge(35 * MIB, 32 * MIB)
    (mapped,) = listed(*logins((3 * MIB, 2055 * MIB)), charges={LOGIN: charge})
    assert mapped.size <= 35 * MIB
    family = listed(*logins(*[(32 * MIB, 0)] * 64), charges={LOGIN: charge})
    assert sum(c.anonymous for c in family) <= charge.anonymous


def parts_of(candidate: Candidate) -> list[int]:
    return [root.pid for part in candidate.parts for root in part.roots]


def test_memory_that_no_process_shows_is_a_unit_of_work() -> None:
    """608 MiB in an unmapped memfd: freed when its holder ends, and shown by no process."""
    (only, hidden) = listed(*logins((9 * MIB, 0)), charges={LOGIN: Charge(9 * MIB, 608 * MIB)})
    assert (only.size, hidden.size, parts_of(hidden)) == (9 * MIB, 608 * MIB, [10])
    # Of several it is the one that holds most of what is shown as well.
    *_, hidden = listed(*logins((70 * MIB, 0), (9 * MIB, 0)), charges={LOGIN: Charge(79 * MIB, 608 * MIB)})
    assert (hidden.size, parts_of(hidden)) == (608 * MIB, [10])


def test_memory_that_one_of_several_holds_is_ended_with_them_all() -> None:
    shown = [(30 * MIB, 0)] * 3
    bash = shell(9, 1, 5 * MIB, cgroup=f"{LOGIN}/session-9.scope")
    found = listed(*logins(*shown), bash, charges={LOGIN: Charge(95 * MIB, 608 * MIB)})
    (together,) = (c for c in found if c.parts)
    assert (together.size, together.processes, together.kind) == (608 * MIB, 3, "session")
    assert parts_of(together) == [10, 11, 12]
    # It is as old as what is oldest there: who comes later is not to be taken for who took it.
    assert (together.owner, together.freezer, together.first) == (1000, LOGIN, Member(9, 90))
    # Nothing is left but the shell: it may hold a descriptor as well as any other.
    *_, rest = listed(bash, charges={LOGIN: Charge(5 * MIB, 608 * MIB)})
    assert (rest.size, parts_of(rest), rest.key) == (608 * MIB, [9], together.key)


def test_who_was_moved_here_by_root_holds_what_is_shown() -> None:
    """Its charge stayed where it grew (cgroup-v2.rst, "Memory Ownership")."""
    job = "/training.slice/a.service"
    moved = [process(n, 1, 6 * GIB, cgroup=job) for n in (10, 11)]
    (found,) = listed(*moved, charges={job: Charge(MIB, 0)})
    assert found.anonymous == 12 * GIB
    assert [c.anonymous for c in listed(*logins((6 * GIB, 0), (6 * GIB, 0)), charges={LOGIN: Charge(MIB, 0)})] == [
        6 * GIB,
        6 * GIB,
    ]


def test_locked_files_are_given_back_too() -> None:
    """`mlock` of a file: no process shows it as its own, and the kernel cannot drop it."""
    job = "/training.slice/a.service"
    charge = Charge(5 * MIB, 3 * MIB, unevictable=700 * MIB)
    (found,) = listed(process(10, 1, 5 * MIB, cgroup=job), charges={job: charge})
    assert found.size == 700 * MIB
    assert sum(c.size for c in listed(*logins((5 * MIB, 3 * MIB)), charges={LOGIN: charge})) == 700 * MIB


def test_the_cgroups_whose_charge_is_asked_for() -> None:
    inside = [
        process(10, 1, cgroup=f"{MANAGER}/app.slice/x.service"),
        process(11, 1, cgroup=SESSION),
        process(12, 1, cgroup="/training.slice/a.service/inner"),
        process(13, 1, cgroup=f"{SLURM}/job_7/step_0/user/task_0"),
        process(14, 1, cgroup="/system.slice/cron.service"),
        process(15, 1, cgroup="/"),
        process(16, 1, cgroup="/made/by/hand"),
    ]
    assert whole_units(inside) == {
        LOGIN, "/training.slice/a.service", f"{SLURM}/job_7", "/system.slice/cron.service", "/made",
    }  # fmt: skip


SIZE = st.integers(0, 2**40)
CGROUPS = [
    f"{MANAGER}/init.scope", f"{MANAGER}/app.slice/x.service", f"{MANAGER}/app.slice/docker-{HEX}.scope", SESSION,
    f"{MANAGER}/x_slurmstepd.scope/job_1/step_0/slurm", f"{MANAGER}/ssh.service", f"{LOGIN}", f"{MANAGER}/a/../../b",
]  # fmt: skip
NAMES = ["systemd", "(sd-pam)", "sshd", "tmux: server", "su", "python3", "", ") R 1"]
LIES = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(1, 30), st.integers(0, 1), st.integers(1, 400), st.sampled_from(NAMES),
        st.sampled_from(CGROUPS), st.integers(0, 2 * GIB), st.integers(0, 2 * GIB),
    ),
    max_size=25,
)  # fmt: skip


@given(LIES, st.integers(0, 24), st.booleans(), st.integers(0, 60 * GIB))
def test_whatever_a_user_makes_of_the_own_tree_a_hog_in_it_can_be_ended(
    lies: list[tuple[int, int, int, int, str, str, int, int]], hog: int, mapped: bool, unseen: int
) -> None:
    """Parents, sessions, terminals, ages, names and cgroups are theirs to choose; the numbers are not."""
    made = []
    for n, (parent, session, terminal, start, name, cgroup, anonymous, shared) in enumerate(lies):
        sizes = (50 * GIB, shared) if n == hog and not mapped else (anonymous, 50 * GIB) if n == hog else (anonymous, 0)
        made.append(
            process(n + 2, parent, sizes[0], session=session, terminal=terminal, start=start, name=name,
                    cgroup=cgroup, shared=sizes[1])
        )  # fmt: skip
    shown = sum(p.anonymous for p in made), sum(p.shared for p in made)
    found = listed(*made, charges={LOGIN: Charge(shown[0], shown[1] + unseen)})
    ended = {root.pid for c in found if not c.protected for root in c.roots}
    assert hog >= len(made) or any(not c.protected and c.size >= 50 * GIB for c in found)
    if made and not all(c.protected for c in found):
        assert sum(c.size for c in found) >= sum(shown) + unseen - 64 * MIB
    whole = {p.pid for p in made if any(not c.roots and not c.parts and p.cgroup == c.cgroup for c in found)}
    kept = {root.pid for c in found if c.protected for root in c.roots}
    assert len(kept) <= 2, "the manager and its helper"
    assert kept | whole | ended >= {p.pid for p in made if p.parent in (0, 1)}


@given(st.lists(st.tuples(SIZE, SIZE), min_size=1, max_size=8), SIZE, SIZE)
def test_nobody_holds_more_than_is_charged_and_nothing_charged_is_lost(
    shown: list[tuple[int, int]], anonymous: int, shared: int
) -> None:
    anonymous = max(anonymous, *(own for own, _ in shown))
    found = listed(*logins(*shown), charges={LOGIN: Charge(anonymous, shared)}, above=2**50)
    assert sum(c.anonymous for c in found) <= anonymous
    assert sum(c.shared for c in found) <= shared
    assert anonymous + shared - sum(c.size for c in found) <= 64 * MIB + 2 * len(found)


# Whose it is.


def test_numbers_of_containers_count_as_their_account() -> None:
    ranges = parse_subuid(b"alice:100000:65536\n1002:165536:65536\n", b"root:x:0:0::/:\nalice:x:1001:1001::/:\n")
    assert ranges == (Range(100000, 165535, 1001), Range(165536, 231071, 1002))
    asked = (0, 999, 1001, 99999, 100000, 165535, 165536, 231072)
    assert [account_of(uid, ranges) for uid in asked] == [0, 999, 1001, 99999, 1001, 1001, 1002, 231072]
    container = f"/user.slice/user-1001.slice/user@1001.service/user.slice/libpod-{HEX}.scope"
    (found,) = listed(process(10, 1, 9, owner=100999, cgroup=container), ranges=ranges)
    assert found.owner == 1001
    # The range is in no file: a directory service has it. Whose login it is says the cgroup, which is root's.
    (found,) = listed(process(10, 1, 9, owner=700000, cgroup=container), ranges=ranges)
    assert found.owner == 1001


@pytest.mark.parametrize(
    "line",
    [
        b"bob:100000:65536",
        b"alice:x:5",
        b"alice:0:4294967295",
        b"alice:100000",
        b":100000:",
        b"alice:100000:0",
        b"\xff",
    ],
)
def test_a_line_that_lends_nothing_is_left_out(line: bytes) -> None:
    assert parse_subuid(line, b"alice:x:1001:1001::/:\n") == ()


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 2**32))
def test_no_file_makes_it_fail(text: bytes, passwd: bytes, uid: int) -> None:
    assert account_of(uid, parse_subuid(text, passwd)) >= 0


def test_a_file_that_is_none_holds_nothing_up(tmp_path: Path) -> None:
    assert read_ranges(tmp_path) == ()
    os.mkfifo(tmp_path / "subuid")
    assert read_ranges(tmp_path) == ()
    (tmp_path / "subuid").unlink()
    (tmp_path / "subuid").write_text("alice:100000:65536\n")
    (tmp_path / "passwd").write_text("alice:x:1001:1001::/:\n")
    assert read_ranges(tmp_path) == (Range(100000, 165535, 1001),)


@pytest.mark.parametrize(
    ("uid", "person"),
    [(0, False), (105, False), (1000, True), (60513, True), (64030, False), (65534, False), (100000, True)],
)
def test_who_is_a_person(uid: int, person: bool) -> None:
    assert is_person(uid) == person
