"""spark-run from its command line to its exit code; the test plays the helper and PID 1, all else is real."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkhost.launcher import cli, client, config, jobs, turn
from sparkhost.launcher.request import Leave, Start, parse
from tests.unit.launcher_jobs import CLEAN, HOST, STUB

END = (HOST.parent / "training_slice" / "spark-job-end").read_text()
ID = "0123abcd"


class Host:
    """Starts a stub for every request, and runs the end script when it is over, as systemd would."""

    def __init__(self, ends: Path, result: str = "") -> None:
        self.ends, self.result = ends, result
        self.requests: list[Start] = []
        self.first: list[dict[str, Any]] = []  # what is told before the job is started
        self.left = threading.Event()
        self.name = f"\0sparkfleet-test-{secrets.token_hex(8)}"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.name)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # the test is over, and nobody has asked
                return
            with connection:
                data, fds, _, _ = socket.recv_fds(connection, 2048, 1)
                request = parse(data)
                if isinstance(request, Leave):
                    connection.send(b'{"ok": true}')
                    self.left.set()
                    return
                assert isinstance(request, Start)
                self.requests.append(request)
                started = {"ok": True, "id": ID, "unit": f"spark-job-x-{ID}.service", "memory": request.memory or 2**30}
                answer = self.first.pop(0) if self.first else started
                connection.send(json.dumps(answer).encode())
            (fd,) = fds
            if answer is started:
                break
            os.close(fd)
        code = subprocess.run(
            ["/usr/bin/python3", "-IS", "-c", STUB], stdin=fd, stdout=fd, env=CLEAN, cwd="/", check=False
        ).returncode
        result = self.result or ("success" if code == 0 else "exit-code")
        environment = {"SERVICE_RESULT": result, "EXIT_CODE": "exited", "EXIT_STATUS": str(code)}
        script = END.replace("/run/sparkfleet/ends", str(self.ends))
        subprocess.run(["sh", "-c", script, "end", str(os.getuid()), ID], stdout=fd, env=environment, check=True)
        os.close(fd)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(config, "PATH", tmp_path / "launcher.json")
    monkeypatch.setattr(jobs, "ENDS", tmp_path / "ends")
    (tmp_path / "ends" / str(os.getuid())).mkdir(parents=True)
    config.PATH.write_text('{"preflight": "refuse"}')
    played = Host(tmp_path / "ends")
    monkeypatch.setattr(client, "SOCKET", played.name)
    yield played
    played.listener.close()


def test_a_job_from_command_line_to_summary(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    words = [
        "--memory",
        "64M",
        "--need",
        "1M",
        "--time",
        "8h",
        "--name",
        "x",
        "--",
        "sh",
        "-c",
        "echo $SPARK_JOB_NAME; exit 7",
    ]
    assert cli.main(words) == 7
    output = capfd.readouterr()
    assert output.out == "x\n"
    assert f"spark-run: job {ID}: exit code 7; wall time " in output.err
    assert host.requests == [Start(memory=64 * 2**20, time=8 * 3600, name="x")]
    assert jobs.chosen("x").argv[0] == "sh"


def test_a_detached_job_is_logged_and_waited_for(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--detach", "--no-preflight", "--", "sh", "-c", "echo written; exit 3"]) == 0
    assert capfd.readouterr().out == f"{ID}\n"
    host.thread.join(timeout=60)
    assert cli.main(["wait", ID]) == 3
    assert cli.main(["logs", ID]) == 0
    output = capfd.readouterr()
    assert output.out == "written\n"
    assert f"job {ID}: exit code 3; peak CPU memory" in output.err
    assert cli.main(["ps", "--all"]) == 0
    assert f"{ID}  -     ended 3" in capfd.readouterr().out


def test_the_time_limit_is_named(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    host.result = "timeout"
    assert cli.main(["--no-preflight", "--quiet", "--time", "1h", "--", "sh", "-c", "kill -TERM $$"]) == 143
    assert "ended by its time limit of 1h 00min" in capfd.readouterr().err


def test_a_command_that_is_not_there_is_one_line(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--no-preflight", "--", "no-such-command"]) == 127
    assert capfd.readouterr().err == "spark-run: cannot run no-such-command: No such file or directory\n"


def test_too_little_memory_is_refused_before_anything_is_asked(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--need", "900T", "--", "true"]) == 125
    assert "921600.0 GiB are asked for, but " in capfd.readouterr().err
    assert host.requests == []


def test_a_host_without_the_launcher_is_one_line(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    config.PATH.unlink()
    assert cli.main(["--", "true"]) == 125
    assert "is the measure training_slice deployed on this host?" in capfd.readouterr().err


def test_variables_tell_of_the_promise_unless_they_shall_not(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--no-preflight", "--memory", "16G"]
    command = ["--", "sh", "-c", "echo ${MAX_JOBS-unset}"]
    wanted = str(min(2, len(os.sched_getaffinity(0))))
    assert cli.main([*words, *command]) == 0
    output = capfd.readouterr()
    assert output.out == f"{wanted}\n"
    assert "promised 16.0 GiB; peak CPU memory" in output.err


def test_plain_env_sets_nothing(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--no-preflight", "--plain-env", "--", "sh", "-c", "echo ${MAX_JOBS-unset}"]) == 0
    assert capfd.readouterr().out == "unset\n"


def test_a_job_waits_for_its_turn_and_says_its_place(
    host: Host, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "EVERY", 0.05)
    waits = {"ok": False, "error": "no room", "wait": {"ticket": "0000abcd", "place": "2 of 2"}}
    host.first = [waits, waits, {**waits, "wait": {"ticket": "0000abcd", "place": "1 of 1"}}]
    assert cli.main(["--wait", "--", "true"]) == 0
    assert [(request.wait, request.ticket) for request in host.requests] == [
        (True, None),
        *[(True, "0000abcd")] * 3,
    ]
    lines = [line for line in capfd.readouterr().err.splitlines() if "waits" in line]
    assert lines == [f"spark-run: waits, place {place}: no room (Ctrl-C gives up)" for place in ("2 of 2", "1 of 1")]


def test_a_job_that_has_waited_long_enough_is_none(
    host: Host, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "EVERY", 0.4)
    waits = {"ok": False, "error": "no room", "wait": {"ticket": "0000abcd", "place": "1 of 1"}}
    host.first = [waits] * 10
    assert cli.main(["--wait=1s", "--", "true"]) == 125
    assert "not started: it has waited for 1." in capfd.readouterr().err
    host.left.wait(5)
    assert host.left.is_set()


def test_ctrl_c_gives_the_place_up(
    host: Host, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = {"ok": False, "error": "no room", "wait": {"ticket": "0000abcd", "place": "1 of 1"}}
    host.first = [waits] * 10
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    assert cli.main(["--wait", "--", "true"]) == 130
    assert "you have given up" in capfd.readouterr().err
    host.left.wait(5)
    assert host.left.is_set()
