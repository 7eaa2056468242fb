"""Promises on real hosts: who fits starts, who does not is refused or waits, and each job is told of its own."""

from __future__ import annotations

import json

import pytest

from tests.integration.deploying import wait_for
from tests.integration.launching import MIB, Terminal, deployed, detached, runs, spark_run, summary
from tests.lab import Host, Lab

QUEUE = "/run/sparkfleet/queue.json"


@pytest.fixture(scope="module", params=["spark1", "spark2"])
def host(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Debian 12, then Debian 13: 600 MiB for jobs, who does not fit is refused."""
    chosen: Host = request.getfixturevalue(request.param)
    deployed(lab, chosen, tmp_path_factory.mktemp("fleet"), admission="refuse", job_memory_default="128MiB")
    return chosen


def test_promises_that_do_not_fit_are_refused_with_figures(host: Host) -> None:
    job = detached(host, "sleep 600", words="--memory 400M")
    done = spark_run(host, "--no-preflight --memory 300M -- true", "bob")
    assert done.rc == 125
    assert "300 MiB are promised, but 200 MiB are left: 1 jobs have 400 MiB of " in done.stderr
    assert spark_run(host, "--no-preflight --memory 150M -- true", "bob").rc == 0
    assert spark_run(host, f"stop {job}").rc == 0


def test_who_waits_starts_when_there_is_room_and_in_order(host: Host) -> None:
    job = detached(host, "sleep 600", words="--memory 500M")
    first = Terminal(host, "bob", "spark-run --memory 400M --wait -- sh -c 'echo fi\"\"rst; sleep 5'")
    first.read_until(b"waits, place 1 of 1")
    second = Terminal(host, "alice", 'spark-run --memory 64M --wait -- echo sec""ond')
    second.read_until(b"waits, place 2 of 2")
    host.sudo("systemctl stop sparkfleet-launcher.service")  # the queue outlives the helper
    assert spark_run(host, f"stop {job}").rc == 0
    assert (first.end(), second.end()) == (0, 0)
    assert b"first" in first.seen
    assert b"second" in second.seen


def test_who_gives_up_or_dies_holds_nobody_up(host: Host) -> None:
    job = detached(host, "sleep 600", words="--memory 500M")
    for way in (b"\x03", b""):
        waiting = Terminal(host, "bob", "spark-run --memory 400M --wait -- true")
        waiting.read_until(b"waits, place 1 of 1")
        if way:
            waiting.type(way)
            assert waiting.end() == 130
        else:
            waiting.process.kill()
            wait_for(host, "! pgrep -u bob -f '[s]park-run'", timeout=60)
        done = spark_run(host, "--no-preflight --memory 64M --wait=60s -- true")
        assert done.rc == 0, done.stderr
    assert spark_run(host, f"stop {job}").rc == 0


def test_a_job_is_told_of_its_promise_and_everybody_sees_it(host: Host) -> None:
    done = spark_run(host, "--memory 64M -- sh -c 'echo $MAX_JOBS'")
    assert done.stdout == "1\n"
    assert "promised 64 MiB; peak CPU memory" in summary(done)
    assert spark_run(host, "--memory 64M --plain-env -- sh -c 'echo ${MAX_JOBS-none}'").stdout == "none\n"
    job = detached(host, "sleep 600")
    assert runs(host, job)
    (seen,) = [one for one in json.loads(host.run("spark-top --json", user="bob").stdout)["holders"]
               if one["what"] == f"job {job}"]  # fmt: skip
    assert seen["promise"] == 128 * MIB
    assert seen["use"] == seen["cpu"] + (seen["gpu"] or 0)
    assert spark_run(host, f"stop {job}").rc == 0
