"""The measure training_slice: who is capped and who is not, what a deploy leaves alone, what it repairs and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.auditing import audit, verdicts
from tests.integration.deploying import deploy, sparkfleet, wait_for
from tests.integration.launching import (
    HOLD,
    MIB,
    SLICE,
    deployed,
    detached,
    properties,
    runs,
    spark_run,
    summary,
    training,
    unit_of,
)
from tests.integration.sessions import shown
from tests.lab import Host, Lab

CAP = "/etc/systemd/system/user-.slice.d/50-sparkfleet-training.conf"
SOCKET = "sparkfleet-launcher.socket"
CONTROLS = ("--measure", "training_slice")
GONE = {"state": "absent"}


@pytest.fixture(scope="module", params=["spark1", "spark2"])
def host(request: pytest.FixtureRequest) -> Host:
    """Debian 12, then Debian 13."""
    chosen: Host = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(scope="module")
def folder(lab: Lab, host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the fleet file is, once it has been deployed: carol is made by the deploy, alice and bob only added."""
    path = tmp_path_factory.mktemp("fleet")
    key = Path(f"{lab.admin_key}.pub").read_text().strip()
    deployed(lab, host, path, users={"carol": [key]})
    return path


def memory_max(host: Host, cgroup: str) -> str:
    return host.run(f"cat /sys/fs/cgroup/{cgroup}/memory.max").stdout.strip()


def test_the_recipe_that_people_copy_fails(host: Host) -> None:
    """A scope takes no OOMScoreAdjust=, and a user's own manager is not the system's slice."""
    done = host.sudo("systemd-run --scope -p OOMScoreAdjust=500 true", check=False)
    assert done.rc != 0
    assert "Unknown assignment" in done.stderr
    command = "systemd-run --user --quiet --wait --pipe --slice=training.slice cat /proc/self/cgroup"
    assert "/user@1001.service/" in host.run(command, user="alice").stdout


def test_again_changes_nothing(lab: Lab, host: Host, folder: Path) -> None:
    again = deploy(lab, folder / "fleet.yaml")
    assert (again.rc, again.changes(host.name)) == (0, {}), again.output


def test_a_user_is_held_outside_of_jobs_too_and_an_admin_is_not(host: Host, folder: Path) -> None:
    hold = HOLD.format(mib=400, then="pass")
    done = host.run(hold, user="alice", check=False, fresh=True)
    assert done.rc != 0
    assert memory_max(host, "user.slice/user-1001.slice") == str(300 * MIB)
    assert host.run(hold, fresh=True, timeout=120).rc == 0
    assert memory_max(host, "user.slice/user-1000.slice") == "max"
    assert host.run("echo alive", user="alice", fresh=True).stdout == "alive\n"


def test_users_whom_the_deploy_made_log_in_with_their_keys_and_train(host: Host, folder: Path) -> None:
    done = host.run("spark-run --no-preflight -- id -un", user="carol", fresh=True, timeout=120)
    assert done.stdout == "carol\n"
    assert host.run("id -nG carol").stdout.split() == ["carol", "training"]


def test_two_users_share_the_slice(host: Host, folder: Path) -> None:
    jobs = {"alice": detached(host, "sleep 600"), "bob": detached(host, "sleep 600", "bob")}
    assert memory_max(host, "training.slice") == str(600 * MIB)
    assert properties(host, unit_of(jobs["bob"], 1002), "User", "OOMScoreAdjust") == {
        "User": "1002",
        "OOMScoreAdjust": "500",
    }
    for user, job in jobs.items():
        assert spark_run(host, f"stop {job}", user).rc == 0


def test_preflight_names_who_holds_the_memory(host: Host, folder: Path) -> None:
    done = spark_run(host, "--need 100G -- true")
    assert done.rc == 0
    assert "100.0 GiB are asked for, but " in done.stderr
    assert "who holds the rest" in done.stderr
    top = host.run("spark-top", user="alice").stdout
    assert " available of " in top
    assert "USER" in top


def test_a_deploy_leaves_jobs_alone_and_raises_their_cap(lab: Lab, host: Host, folder: Path) -> None:
    job = detached(host, "sleep 600")
    look = f"cat {SLICE}/{unit_of(job)}/cgroup.procs; systemctl show -p InvocationID {unit_of(job)}"
    before = host.run(look).stdout
    path = training(lab, host, folder, memory_max="700MiB", users={})
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    assert host.run(look).stdout == before
    assert memory_max(host, "training.slice") == str(700 * MIB)
    assert host.run("id -nG carol").stdout.split() == ["carol"], (
        "taken off the list: out of the group, the account stays"
    )
    assert deploy(lab, training(lab, host, folder)).rc == 0
    assert host.run(look).stdout == before
    assert spark_run(host, f"stop {job}").rc == 0


def test_a_cap_is_not_put_over_somebodys_head(lab: Lab, host: Host, folder: Path) -> None:
    host.run(f"{HOLD.format(mib=200, then='import time; time.sleep(600)')} >/dev/null 2>&1 &", user="alice")
    wait_for(host, "[ $(cat /sys/fs/cgroup/user.slice/user-1001.slice/memory.current) -gt 200000000 ]")
    try:
        result = deploy(lab, training(lab, host, folder, session_memory_max="100MiB"))
        assert result.rc == 1
        assert "user-1001.slice (alice) holds 0." in result.output
        assert "putting the cap in force would kill what runs there" in result.output
        assert host.run("pgrep -u alice python3").stdout
    finally:
        host.run("pkill python3", user="alice")
    assert deploy(lab, training(lab, host, folder)).rc == 0


@pytest.mark.parametrize(
    ("command", "failing"),
    [
        (f"systemctl disable --now {SOCKET}", {"06", "07"}),
        (f"rm {CAP}; systemctl daemon-reload", {"04"}),
        ("systemctl set-property --runtime training.slice MemoryMax=infinity", {"01", "03", "07"}),
        ("rm /etc/systemd/system/user-1000.slice.d/50-sparkfleet-training.conf; systemctl daemon-reload", {"05"}),
    ],
)
def test_what_is_broken_is_found_and_repaired(
    lab: Lab, host: Host, folder: Path, command: str, failing: set[str]
) -> None:
    path = training(lab, host, folder)
    host.sudo(command)
    red = audit(lab, path, *CONTROLS)
    assert verdicts(red) == {(f"SPK-SLICE-{number}", host.name) for number in failing}, red.stdout
    planned = sparkfleet(lab, path, "drift").changes(host.name)
    assert list(planned) == ["training_slice"] or "systemd" in planned
    assert deploy(lab, path).rc == 0
    green = audit(lab, path, *CONTROLS)
    assert (verdicts(green), verdicts(green, "error")) == (set(), set()), green.stdout
    assert deploy(lab, path).changes(host.name) == {}


@pytest.mark.parametrize(
    ("unit", "ours"),
    [
        ("training.slice", "/etc/systemd/system/training.slice"),
        ("user-1001.slice", CAP),
    ],
)
def test_a_foreign_cap_is_refused_and_named_until_it_is_gone(
    lab: Lab, host: Host, folder: Path, unit: str, ours: str
) -> None:
    directory = f"/etc/systemd/system/{unit}.d"
    reload = f"systemctl daemon-reload; systemd-run --quiet --wait --slice={unit} true"
    host.sudo(f"mkdir -p {directory}; printf '[Slice]\\nMemoryMax=infinity\\n' > {directory}/zz-site.conf; {reload}")
    host.run("true", user="alice")
    path = training(lab, host, folder)
    red = audit(lab, path, *CONTROLS)
    assert verdicts(red) != set(), red.stdout
    result = deploy(lab, path)
    assert (result.rc, result.changes(host.name)) == (1, {}), result.output
    assert f"{unit} has MemoryMax=infinity, not " in result.output
    assert f"{directory}/zz-site.conf overrides {ours}: remove that MemoryMax line" in result.output
    host.sudo(f"rm -r {directory}; {reload}")
    assert deploy(lab, path).rc == 0
    green = audit(lab, path, *CONTROLS)
    assert (verdicts(green), verdicts(green, "error")) == (set(), set()), green.stdout


def test_it_is_all_there_after_a_reboot(lab: Lab, host: Host, folder: Path) -> None:
    path = training(lab, host, folder)
    assert deploy(lab, path).rc == 0
    host.reboot()
    assert shown(host, SOCKET, "ActiveState") == "active"
    done = spark_run(host, f"--memory 64M -- {HOLD.format(mib=200, then='pass')}")
    assert "killed by its memory cap of 64 MiB" in summary(done), done.stderr
    assert memory_max(host, "user.slice/user-1001.slice") == str(300 * MIB)
    green = audit(lab, path, *CONTROLS)
    assert (verdicts(green), verdicts(green, "error")) == (set(), set()), green.stdout
    assert deploy(lab, path).changes(host.name) == {}


def test_it_is_taken_off_once_no_job_runs(lab: Lab, host: Host, folder: Path) -> None:
    job = detached(host, "sleep 600")
    absent = training(lab, host, folder, **GONE)
    refused = deploy(lab, absent)
    assert refused.rc == 1
    assert f"1 jobs run in training.slice: {unit_of(job)}: wait for their end" in refused.output
    assert "user carol: lock: a deploy has made this account" in refused.output
    assert host.sudo("chage --list carol | grep '^Account expires'").stdout.split(":")[1].strip() != "never"
    assert runs(host, job)
    host.sudo(f"systemctl stop {unit_of(job)}")
    assert spark_run(host, f"wait {job}").rc == 143
    removed = deploy(lab, absent)
    assert removed.rc == 0, removed.output
    left = (
        "ls -d /opt/sparkfleet/lib/launcher /opt/sparkfleet/bin /etc/sparkfleet/launcher.json /usr/local/bin/spark-run"
    )
    assert host.run(f"{left} 2>/dev/null", check=False).stdout == ""
    assert host.run("getent group training", check=False).rc != 0
    assert memory_max(host, "user.slice/user-1001.slice") == "max"
    assert shown(host, "training.slice", "MemoryMax") == "infinity"
    assert deploy(lab, absent).changes(host.name) == {}
