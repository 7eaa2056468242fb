"""Those who would have the root helper do more than it should: what each of them gets on a real host."""

from __future__ import annotations

import json

import pytest

from tests.integration.deploying import wait_for
from tests.integration.launching import asked, deployed, detached, properties, request, runs, spark_run, unit_of
from tests.lab import Host, Lab

OWNED = "/tmp/owned"
# Says who runs it, wherever it is loaded.
EVIL = f"import os\nopen('{OWNED}', 'a').write(str(os.getuid()) + ' ')\n"
# The denials of a seccomp filter (type=1326), and of what ends by one.
DENIED = (
    "journalctl -k -b | grep -E 'type=1326|audit.*SECCOMP'; journalctl -b -u sparkfleet-launcher | grep -i 'sigsys'"
)


@pytest.fixture(scope="module", params=["spark1", "spark2"])
def host(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Debian 12, then Debian 13."""
    chosen: Host = request.getfixturevalue(request.param)
    deployed(lab, chosen, tmp_path_factory.mktemp("fleet"), jobs_max=3)
    return chosen


def refusals(host: Host, user: str, *messages: bytes) -> list[str]:
    """The reasons for which each of the messages was refused; none may have been granted."""
    answers = [json.loads(line) for line in asked(host, user, *messages)]
    assert [answer["ok"] for answer in answers] == [False] * len(messages), answers
    return [answer["error"] for answer in answers]


def test_who_is_no_member_gets_nothing(host: Host) -> None:
    (first, second) = refusals(host, "admin", request("start"), request("drop_cache"))
    assert first == second == "admin is not in the group training: ask the admin of this host"
    done = spark_run(host, "--no-preflight -- true", "admin")
    assert done.rc == 125
    assert "admin is not in the group training" in done.stderr
    refused = host.sudo("spark-run --no-preflight -- true", check=False)
    assert refused.rc == 125
    assert "never as root: run spark-run without sudo" in refused.stderr


def test_who_was_taken_out_of_the_group_is_out_at_once(host: Host) -> None:
    """Whatever groups the open session still has."""
    assert spark_run(host, "--no-preflight -- true", "bob").rc == 0
    host.sudo("gpasswd --delete bob training")
    try:
        assert refusals(host, "bob", request("start")) == [
            "bob is not in the group training: ask the admin of this host"
        ]
    finally:
        host.sudo("gpasswd --add bob training")


def test_another_users_job_is_out_of_reach(host: Host) -> None:
    job = detached(host, "sleep 600", "bob")
    said = refusals(host, "alice", request("stop", id=job), request("stop", id=f"../{job}"), request("stop", id=7))
    assert said[0] == f"no job {job} of yours is running: spark-run ps lists them"
    assert runs(host, job, 1002)
    unit = unit_of(job, 1002)
    assert host.run(f"systemctl stop {unit}", user="alice", check=False).rc != 0
    assert host.run(f"kill $(cat /sys/fs/cgroup/training.slice/{unit}/cgroup.procs)", user="alice", check=False).rc != 0
    assert runs(host, job, 1002)
    assert spark_run(host, f"stop {job}", "bob").rc == 0


@pytest.mark.parametrize(
    "values",
    [
        {"user": "root"},
        {"uid": 0},
        {"properties": {"User": "root"}},
        {"memory": 2**62},
        {"memory": "infinity"},
        {"memory": -1},
        {"memory": True},
        {"name": "x\nUser=root"},
        {"name": "x\u0000y"},
        {"name": "--uid=0"},
        {"name": "%h"},
        {"name": "../../x"},
        {"name": "x" * 900},
        {"time": 0},
        {"host_ipc": 1},
    ],
)
def test_no_field_widens_what_a_job_is(host: Host, values: dict[str, object]) -> None:
    before = host.run("systemctl show -p NRestarts sparkfleet-launcher.service").stdout
    refusals(host, "alice", request("start", **values))
    assert host.run("systemctl show -p NRestarts sparkfleet-launcher.service").stdout == before


def test_garbage_is_refused_and_the_helper_lives(host: Host) -> None:
    refusals(host, "alice", b"")
    pid = properties(host, "sparkfleet-launcher.service", "MainPID")["MainPID"]
    assert int(pid) > 0
    doubled = b'{"version": 1, "action": "stop", "id": "00000000", "id": "11111111"}'
    refusals(host, "alice", b"\0", b"\xff" * 100, b"[" * 1000, b"{}", b"null", doubled, b"NaN")
    refusals(host, "alice", b"x" * 1025, b"x" * 60_000)
    assert properties(host, "sparkfleet-launcher.service", "MainPID")["MainPID"] == pid


def test_what_the_caller_has_set_reaches_nobody_but_the_callers_own(host: Host) -> None:
    """PYTHONPATH, PYTHONSTARTUP, a planted module, a planted library: none is loaded by root."""
    host.run("mkdir -p evil && cat > evil/json.py && cp evil/json.py evil/socket.py", user="alice", input=EVIL)
    before = "cd ~/evil && export PYTHONPATH=$PWD PYTHONSTARTUP=$PWD/json.py LD_PRELOAD=$PWD/none.so && "
    done = spark_run(host, "--no-preflight -- sh -c 'echo $PYTHONPATH; id -u'", before=before)
    assert done.stdout == "/home/alice/evil\n1001\n", done.stderr
    assert host.run(f"cat {OWNED}", check=False).rc != 0
    environment = properties(host, "sparkfleet-launcher.service", "MainPID")["MainPID"]
    assert "evil" not in host.sudo(f"tr '\\0' '\\n' < /proc/{environment}/environ").stdout


def test_command_and_environment_are_nobodys_to_read(host: Host) -> None:
    host.run("cat > secret.sh", user="alice", input="exec sleep 600")
    script = "export TOKEN=hunter2; spark-run --no-preflight --detach -- sh secret.sh"
    job = host.run(script, user="alice").stdout.strip()
    wait_for(host, f"grep -q . /sys/fs/cgroup/training.slice/{unit_of(job)}/cgroup.procs")
    shown = host.run(f"systemctl show {unit_of(job)}; journalctl -b -u sparkfleet-launcher --no-pager", user="bob")
    assert "hunter2" not in shown.stdout
    assert "secret.sh" not in shown.stdout
    assert spark_run(host, f"stop {job}").rc == 0


def test_where_root_notes_how_jobs_ended_no_user_can_write(host: Host) -> None:
    """Neither a link that root would follow, nor anything that fills /run, for every user."""
    host.sudo("echo untouched > /etc/victim; chmod 644 /etc/victim")
    ends = "/run/sparkfleet/ends/1001"
    link = f"ln -s /etc/victim {ends}/$SPARK_JOB_ID; dd if=/dev/zero of={ends}/fill bs=1M count=64; true"
    done = spark_run(host, f"--no-preflight -- sh -c '{link}'")
    assert done.rc == 0, done.stderr
    assert host.run("cat /etc/victim").stdout == "untouched\n"
    swap = f"rm -rf {ends}; ln -s /etc {ends}; mv /run/sparkfleet/ends /tmp/x"
    host.run(swap, user="alice", check=False)
    job = detached(host, "sh -c 'exit 3'")
    assert spark_run(host, f"wait {job}").rc == 3
    assert host.run(f"stat -c %U:%F {ends} {ends}/{job}").stdout == "root:directory\nroot:regular file\n"
    mine = "find /run/sparkfleet -writable ! -type s ! -type l"
    assert host.run(mine, user="alice", check=False).stdout == ""


def test_what_ends_a_job_is_told_by_root_also_after_a_daemon_reload(host: Host) -> None:
    job = detached(host, "sleep 600")
    host.sudo("systemctl daemon-reload")
    assert spark_run(host, f"stop {job}").rc == 0
    assert spark_run(host, f"wait {job}").rc == 143
    assert host.run(f"stat -c %U /run/sparkfleet/ends/1001/{job}").stdout == "root\n"


def test_silent_sub_uids_keep_nobody_from_starting_jobs(host: Host) -> None:
    """As after newuidmap(1): eight uids of alice's range, four connections each, which say nothing for a minute."""
    silent = (
        "import os, socket, sys, time\n"
        "os.setgroups([]); os.setresuid(*[int(sys.argv[1])] * 3)\n"
        "held = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(4)]\n"
        "for one in held: one.connect('/run/sparkfleet/launcher.sock')\n"
        "time.sleep(60)\n"
    )
    host.sudo("cat > /tmp/silent.py", input=silent)
    first = int(host.run("grep ^alice: /etc/subuid | cut -d: -f2", check=False).stdout or 100000)
    each = " ".join(str(first + number) for number in range(8))
    host.sudo(f"for uid in {each}; do python3 /tmp/silent.py $uid </dev/null >/dev/null 2>&1 & done")
    for _ in range(5):
        assert spark_run(host, "--no-preflight -- true", "bob").rc == 0


def test_the_number_of_jobs_is_bounded(host: Host) -> None:
    jobs = [detached(host, "sleep 600") for _ in range(3)]
    done = spark_run(host, "--no-preflight -- true")
    assert done.rc == 125
    assert "3 jobs of yours are running, no more are allowed" in done.stderr
    assert spark_run(host, "--no-preflight -- true", "bob").rc == 0
    for job in jobs:
        assert spark_run(host, f"stop {job}").rc == 0


def test_the_page_cache_is_dropped_once_in_a_while_for_all(host: Host) -> None:
    (first,) = (json.loads(line) for line in asked(host, "alice", request("drop_cache")))
    assert first == {"ok": True}
    (said,) = refusals(host, "bob", request("drop_cache"))
    assert said.startswith("the page cache was dropped a moment ago: try again in ")


def test_the_hardened_helper_was_kept_from_nothing_that_it_needs(host: Host) -> None:
    """After all of the above."""
    assert host.sudo(DENIED, check=False).stdout == ""
    assert "Traceback" not in host.sudo("journalctl -b -u sparkfleet-launcher --no-pager").stdout
