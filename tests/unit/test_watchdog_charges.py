"""What a unit of work gives back when it ends: shown by processes, charged by the kernel, and chosen by who lies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sparkhost.watchdog.cgroup import Charge
from sparkhost.watchdog.model import GIB, MIB, Candidate, Member
from sparkhost.watchdog.process import Process
from sparkhost.watchdog.work import whole_units
from tests.unit.process_tables import HEX, LOGIN, MANAGER, SESSION, SLURM, listed, process, shell


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
