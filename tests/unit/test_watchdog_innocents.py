"""From the table of processes to who is signalled: nobody is ended for what another one holds, or claims to."""

from __future__ import annotations

from sparkhost.watchdog.cgroup import Charge
from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.hunt import leaves
from sparkhost.watchdog.model import GIB, MIB, Candidate, Look, Policy, Samples, Signal
from tests.unit.process_tables import listed, process, shell


def ended(found: list[Candidate]) -> set[int]:
    """Whom the watchdog kills with 1 GiB left, by the processes that the victim begins with."""
    samples = Samples(Look(100.0, 128 * GIB, GIB, 0, slope=-4e9), candidates=tuple(found))
    action = decide(samples, Policy(brake="off"))
    assert isinstance(action, Signal)
    assert not any(unit.protected for unit in leaves(action.victim))
    return {root.pid for unit in leaves(action.victim) for root in unit.roots}


def login(uid: int) -> str:
    return f"/user.slice/user-{uid}.slice"


def test_who_shares_a_segment_is_not_ended_for_its_size_four_times() -> None:
    sharers = [
        process(n, 1, MIB, shared=38 * GIB, session=n, owner=1001, cgroup=f"{login(1001)}/session-{n}.scope")
        for n in range(10, 14)
    ]
    hog = process(20, 1, 50 * GIB, owner=1002, cgroup=f"{login(1002)}/session-20.scope")
    charges = {login(1001): Charge(4 * MIB, 38 * GIB), login(1002): Charge(50 * GIB, 0)}
    assert ended(listed(*sharers, hog, charges=charges)) == {20}


def test_decoys_do_not_come_before_the_hog() -> None:
    decoys = [
        process(n, 1, 3 * MIB, shared=60 * GIB, session=n, owner=1001, cgroup=f"{login(1001)}/session-{n}.scope")
        for n in range(10, 14)
    ]
    hog = process(20, 1, 40 * GIB, owner=1002, cgroup="/user.slice/user-1002.slice/session-20.scope")
    charges = {login(1001): Charge(12 * MIB, 32 * MIB), login(1002): Charge(40 * GIB, 0)}
    assert ended(listed(*decoys, hog, charges=charges)) == {20}


def test_a_job_of_cron_comes_before_small_innocents_and_before_cron() -> None:
    cron = "/system.slice/cron.service"
    innocents = [
        process(n, 1, size * MIB, owner=1000 + n, session=n, cgroup=f"{login(1000 + n)}/session-{n}.scope")
        for n, size in ((30, 1024), (31, 400), (32, 300))
    ]
    found = listed(
        process(10, 1, 2 * MIB, cgroup=cron, owner=0, name="cron"),
        process(11, 10, 2 * MIB, cgroup=cron, owner=0, name="cron"),
        process(12, 11, 95 * GIB, cgroup=cron, owner=1001, session=12),
        *innocents,
    )
    assert ended(found) == {12}


def test_what_calls_itself_a_part_of_a_login_comes_before_innocents() -> None:
    scope = f"{login(1001)}/session-1.scope"
    hogs = [process(n, 11, 300 * MIB, owner=1001, cgroup=scope, name="sshd") for n in range(100, 300)]
    innocent = process(20, 1, 2 * GIB, owner=1002, cgroup=f"{login(1002)}/session-2.scope")
    victims = ended(listed(shell(11, 1, 8 * MIB, owner=1001, cgroup=scope), *hogs, innocent))
    assert len(victims) >= 80
    assert victims.isdisjoint({11, 20})


def test_a_hog_in_the_place_of_the_users_systemd_is_ended() -> None:
    init = f"{login(1001)}/user@1001.service/init.scope"
    found = listed(
        process(10, 1, 9 * MIB, owner=1001, cgroup=init, name="systemd", start=1),
        process(11, 1, 90 * GIB, owner=1001, cgroup=init, name="systemd"),
        process(20, 1, 2 * GIB, owner=1002, cgroup=f"{login(1002)}/session-2.scope"),
    )
    assert ended(found) == {11}


def test_a_hidden_memfd_is_ended_with_its_users_work_and_nobody_elses() -> None:
    scope = f"{login(1001)}/session-1.scope"
    found = listed(
        shell(11, 1, 8 * MIB, owner=1001, cgroup=scope),
        *(process(n, 11, 30 * MIB, owner=1001, cgroup=scope) for n in (12, 13, 14)),
        process(20, 1, 20 * GIB, owner=1002, cgroup=f"{login(1002)}/session-2.scope"),
        charges={login(1001): Charge(98 * MIB, 60 * GIB), login(1002): Charge(20 * GIB, 0)},
    )
    assert [c.size for c in found if c.parts] == [60 * GIB]
    assert ended(found) == {12, 13, 14}
