"""spark-run on real hosts: a job is as a plain start, but capped, killable, and told about at its end."""

from __future__ import annotations

import pytest

from tests.integration.deploying import wait_for
from tests.integration.launching import HOLD, SLICE, Terminal, deployed, detached, runs, spark_run, summary, unit_of
from tests.lab import Host, Lab


@pytest.fixture(scope="module", params=["spark1", "spark2"])
def host(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Debian 12, then Debian 13, with jobs of 64 processes at most."""
    chosen: Host = request.getfixturevalue(request.param)
    deployed(lab, chosen, tmp_path_factory.mktemp("fleet"), job_tasks_max=64, tasks_max=256)
    return chosen


def test_a_job_over_its_cap_dies_and_nothing_else_does(host: Host) -> None:
    other = detached(host, "sleep 600")
    host.run("sleep 600 >/dev/null 2>&1 & echo $! > sleeper", user="alice")
    done = spark_run(host, f"--memory 64M -- {HOLD.format(mib=200, then='pass')}")
    assert done.rc == 137, done.stderr
    assert "exit code 137" in summary(done)
    assert "killed by its memory cap of 64 MiB (MemoryMax)" in summary(done)
    assert runs(host, other)
    assert host.run("kill -0 $(cat sleeper) && kill $(cat sleeper)", user="alice").rc == 0
    assert spark_run(host, f"stop {other}").rc == 0


def test_half_of_a_job_is_never_left(host: Host) -> None:
    """One process of several is over the cap: all go, also those that hold nothing."""
    host.run("cat > half.sh", user="alice", input=f"sleep 600 &\n{HOLD.format(mib=200, then='pass')}\nwait\n")
    assert spark_run(host, "--memory 64M -- sh half.sh").rc == 137
    assert host.run("pgrep -u alice -x sleep", check=False).stdout == ""


def test_a_fork_bomb_ends_at_the_jobs_limit_and_the_host_goes_on(host: Host) -> None:
    bomb = "import os, time\ntry:\n while True: os.fork() or time.sleep(600)\nexcept BlockingIOError: print('held')"
    host.run("cat > bomb.py", user="alice", input=bomb)
    done = spark_run(host, "--time 60s -- sh -c 'exec timeout -s KILL 30 python3 bomb.py'", timeout=300)
    assert "held" in done.stdout, done.stderr
    assert host.run("echo alive", user="bob", fresh=True).stdout == "alive\n"
    wait_for(host, "! pgrep -u alice -f bomb.py", timeout=120)


def test_a_job_is_killed_first_and_cannot_change_that(host: Host) -> None:
    look = (
        "cat /proc/self/oom_score_adj; echo 0 2>/dev/null > /proc/self/oom_score_adj || echo refused;"
        " sh -c 'cat /proc/self/oom_score_adj'"
    )
    host.run("cat > look.sh", user="alice", input=look)
    done = spark_run(host, "-- sh look.sh")
    first, refused, again = done.stdout.splitlines()
    assert (first, again) == ("500", "500")
    assert refused == "refused"


def test_it_is_in_the_slice_as_the_user_with_all_that_a_plain_start_has(host: Host) -> None:
    look = 'grep -o "/training.slice/.*" /proc/self/cgroup; id -un; pwd; umask; ulimit -n; echo "$MINE"; wc -c'
    host.run("cat > look.sh", user="alice", input=look)
    before = "mkdir -p -m 700 '/tmp/a b' && cd '/tmp/a b' && umask 027 && ulimit -n 512 && export MINE='x  y' && "
    done = spark_run(host, "--name n -- sh ~/look.sh </etc/hostname", before=before)
    assert done.rc == 0, done.stderr
    cgroup, *rest, count = done.stdout.splitlines()
    assert cgroup.startswith("/training.slice/spark-job-1001-")
    assert rest == ["alice", "/tmp/a b", "0027", "512", "x  y"]
    assert int(count) == len("spark1\n")
    assert "exit code 0; wall time " in summary(done)
    assert "peak CPU memory" in summary(done)


@pytest.mark.parametrize(
    ("command", "code"),
    [("sh -c 'exit 37'", 37), ("sh -c 'kill -TERM $$'", 143), ("sh -c 'kill -SEGV $$'", 139), ("no-such-thing", 127)],
)
def test_exit_codes_are_the_commands_own(host: Host, command: str, code: int) -> None:
    assert spark_run(host, f"-- {command}").rc == code


def test_a_terminal_has_its_size_and_its_keys(host: Host) -> None:
    terminal = Terminal(
        host, "alice", "stty rows 33 cols 101; spark-run -- sh -c 'stty size; echo re\"\"ady; sleep 600'"
    )
    terminal.read_until(b"ready")
    assert b"33 101" in terminal.seen
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert b"exit code 130" in terminal.seen
    wait_for(host, "! pgrep -u alice -x sleep", timeout=60)


def test_a_window_that_changes_is_told_to_the_job(host: Host) -> None:
    script = "trap 'stty size; exit 5' WINCH; touch ready; while :; do sleep 0.2; done"
    host.run("rm -f ready; cat > winch.sh", user="alice", input=script)
    later = "(until [ -e ready ]; do sleep 0.2; done; stty rows 44 cols 99 </dev/tty) &"
    terminal = Terminal(host, "alice", f"stty rows 20 cols 80; {later} spark-run -- sh winch.sh")
    assert terminal.end() == 5
    assert b"44 99" in terminal.seen


def test_who_hangs_up_ends_the_job(host: Host) -> None:
    terminal = Terminal(host, "alice", "spark-run -- sh -c 'echo re\"\"ady; sleep 600'")
    terminal.read_until(b"ready")
    terminal.process.kill()
    wait_for(host, "! pgrep -u alice -x sleep", timeout=120)


def test_a_signal_to_the_launcher_reaches_the_job(host: Host) -> None:
    trap = "trap 'echo saved; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    host.run("cat > trap.sh", user="alice", input=trap)
    script = (
        "spark-run -- sh trap.sh > out 2> err & launcher=$!; until grep -q ready out; do sleep 0.1; done; "
        "kill -TERM $launcher; wait $launcher; echo $?; cat out err"
    )
    said = host.run(script, user="alice", timeout=120).stdout
    assert said.startswith("7\nready\nsaved\n"), said


def test_a_detached_job_and_its_shared_memory_outlive_the_logout(host: Host) -> None:
    """A segment of the session itself is deleted by logind (RemoveIPC=yes), which shows that it is awake."""
    host.client.disconnect()
    script = (
        "import os, time\nopen('/dev/shm/mine', 'w').write('x')\nopen('begun', 'w')\n"
        "while not os.path.exists('go'): time.sleep(0.2)\nprint(os.path.exists('/dev/shm/mine'))"
    )
    host.run("rm -f go begun; cat > keep.py", user="alice", input=script)
    job = detached(host, "python3 -u keep.py", words="--name keeper")
    host.run("until [ -e begun ]; do sleep 0.2; done; touch /dev/shm/of-the-session", user="alice")
    host.client.disconnect()
    wait_for(host, "! test -e /dev/shm/of-the-session", timeout=120)
    assert runs(host, job)
    host.run("touch go", user="alice")
    assert spark_run(host, "wait keeper").rc == 0
    assert host.run(f"spark-run logs {job}", user="alice").stdout == "True\n"
    assert host.run("ls /dev/shm/mine", check=False).rc != 0


def test_own_jobs_are_listed_stopped_and_waited_for(host: Host) -> None:
    mine, his = detached(host, "sleep 600", words="--name long"), detached(host, "sleep 600", "bob")
    listed = host.run("spark-run ps", user="alice").stdout
    assert mine in listed
    assert "sleep 600" in listed
    assert his not in listed
    assert mine in host.run("spark-top", user="bob").stdout
    assert spark_run(host, f"stop {his}").rc == 1
    assert runs(host, his, 1002)
    assert spark_run(host, "stop long").rc == 0
    done = spark_run(host, f"wait {mine}")
    assert done.rc == 143
    assert "a signal from outside" in summary(done)
    assert spark_run(host, f"stop {his}", "bob").rc == 0


def test_a_time_limit_ends_a_job_and_is_named(host: Host) -> None:
    done = spark_run(host, "--time 3s -- sleep 600")
    assert done.rc in (143, 137)
    assert "ended by its time limit of 3.0s" in summary(done)


def test_no_unit_of_a_job_is_left_behind(host: Host) -> None:
    # What was stopped a moment ago is told to end, and not waited for.
    wait_for(host, "[ -z \"$(systemctl list-units --all --plain --no-legend 'spark-job-*')\" ]")
    assert host.run("systemctl --failed --plain --no-legend | grep spark", check=False).stdout == ""
    assert host.run(f"ls {SLICE}", check=False).stdout.count("spark-job") == 0
    assert unit_of("0" * 8) not in host.run("systemctl list-units --all").stdout
