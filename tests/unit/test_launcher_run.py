"""spark-run from its command line to its exit code; the test plays the helper and PID 1, all else is real."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkhost.launcher import cli, client, config, jobs
from sparkhost.launcher.request import Start, parse
from tests.unit.launcher_jobs import CLEAN, HOST, STUB

END = (HOST.parent / "training_slice" / "spark-job-end").read_text()
ID = "0123abcd"


class Host:
    """Starts a stub for every request, and runs the end script when it is over, as systemd would."""

    def __init__(self, ends: Path, result: str = "") -> None:
        self.ends, self.result = ends, result
        self.requests: list[Start] = []
        self.name = f"\0sparkfleet-test-{secrets.token_hex(8)}"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.name)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:  # the test is over, and nobody has asked
            return
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 2048, 1)
            request = parse(data)
            assert isinstance(request, Start)
            self.requests.append(request)
            answer = {"ok": True, "id": ID, "unit": f"spark-job-x-{ID}.service", "memory": request.memory or 2**30}
            connection.send(json.dumps(answer).encode())
        (fd,) = fds
        code = subprocess.run(
            ["/usr/bin/python3", "-IS", "-c", STUB], stdin=fd, stdout=fd, env=CLEAN, cwd="/", check=False
        ).returncode
        result = self.result or ("success" if code == 0 else "exit-code")
        environment = {"SERVICE_RESULT": result, "EXIT_CODE": "exited", "EXIT_STATUS": str(code)}
        script = END.replace("/run/sparkfleet/jobs", str(self.ends))
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
