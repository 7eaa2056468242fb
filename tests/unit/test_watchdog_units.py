"""Units of work on hosts that run more than logins: who is protected, what is divided, what counts, what stops it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkhost.watchdog.cgroup import Cgroups, Charge
from sparkhost.watchdog.model import GIB, MIB, Candidate, Member
from sparkhost.watchdog.work import place_of
from tests.unit.process_tables import HEX, LOGIN, MANAGER, POD, SESSION, SLURM, listed, process, shell


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
