"""The sudo password is asked for once and can be seen nowhere; proved by people who look for it.

An unprivileged user on the host, and one on the controller, read every process's command line and environment that
/proc lets them read, as fast as they can, while a deploy runs. That they would see it is proved with stock pyinfra.
"""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparkfleet.connector import data_of
from sparkfleet.settings import load_fleet
from tests.integration.deploying import ESCAPE, PYINFRA, ROOT, all_but, deploy, fleet
from tests.lab import Host, Lab

# Reads the word from its input, not from its own command line, where it would find itself.
WATCHER = """\
import glob, os, sys
word, stop = sys.stdin.readline().strip().encode(), sys.stdin.readline().strip()
seen, looks = set(), 0
print("watching", flush=True)
while not os.path.exists(stop):
    looks += 1
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as stream:
                text = stream.read()
        except OSError:
            continue
        if word in text:
            seen.add(text.replace(b"\\0", b" ")[:60].decode(errors="replace"))
print(looks, len(seen), sorted(seen))
"""
OTHERS = all_but("swap")


@pytest.fixture(scope="module")
def host(spark2: Host) -> Host:
    return spark2


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleet(lab, [host], tmp_path_factory.mktemp("fleet") / "fleet.yaml", defaults=OTHERS)


class Watch:
    """What the watchers saw."""

    looks: int = 0
    seen: int = 0
    said: str = ""


@contextmanager
def watched(command: list[str], word: str, stop: str, finish: list[str]) -> Iterator[Watch]:
    """Runs a watcher around a block; `finish` is the command that makes the file `stop`."""
    watch = Watch()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n{stop}\n")
    process.stdin.close()
    assert process.stdout.readline() == "watching\n"
    try:
        yield watch
    finally:
        subprocess.run(finish, check=True)
        watch.said = process.stdout.read()
        process.wait()
    looks, seen, _ = watch.said.split(" ", 2)
    watch.looks, watch.seen = int(looks), int(seen)


@contextmanager
def on_host(lab: Lab, host: Host, stop: str) -> Iterator[Watch]:
    ssh, *words = host.client.words("alice")
    target = [ssh, *words, "python3", "-I", "-c", shlex.quote(WATCHER)]
    finish = [ssh, *words, "touch", stop]
    with watched(target, lab.admin_password, stop, finish) as watch:
        yield watch


@contextmanager
def on_controller(lab: Lab) -> Iterator[Watch]:
    stop = Path(tempfile.gettempdir()) / f"sparkfleet-stop-{os.getpid()}"  # pytest's own directories are private
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    command = [*nobody, "/usr/bin/python3", "-I", "-c", WATCHER]
    try:
        with watched(command, lab.admin_password, str(stop), ["touch", str(stop)]) as watch:
            yield watch
    finally:
        stop.unlink(missing_ok=True)


def in_terminal(command: list[str], environment: dict[str, str], answers: list[str]) -> tuple[int, str]:
    """Runs a command on a terminal of its own and answers each "password: " in turn. Returns exit code and output."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], cwd=ROOT, env=environment, stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    output, asked = b"", 0
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:  # the last process has closed the terminal
            break
        if not chunk:
            break
        output += chunk
        if output.lower().count(b"password") > asked and output.rstrip().endswith(b":"):
            answer = answers[min(asked, len(answers) - 1)]
            asked = output.lower().count(b"password")
            os.write(main, f"{answer}\n".encode())
    os.close(main)
    return process.wait(), ESCAPE.sub("", output.decode(errors="replace"))


def environment(fleet_file: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "SPARKFLEET_SUDO_PASSWORD_COMMAND"}
    return {**kept, "FLEET": str(fleet_file), "PYINFRA_PROGRESS": "off", **more}


def test_nobody_sees_the_password(lab: Lab, host: Host, fleet_file: Path) -> None:
    with on_host(lab, host, "/tmp/stop-1") as there, on_controller(lab) as here:
        result = deploy(lab, fleet_file, "-vvv", "--debug")
    assert result.rc == 0, result.output
    assert (there.looks > 3, there.seen) == (True, 0), there.said
    assert (here.looks > 3, here.seen) == (True, 0), here.said
    assert lab.admin_password not in result.output
    places = "/tmp /var/tmp /var/log /etc /home /root /run /var/lib/sparkfleet"
    found = host.sudo(f"grep -rlaF -f - {places} 2>/dev/null", check=False, input=lab.admin_password).stdout.split()
    assert found == [], "the password lies in a file on the host"
    assert host.sudo("journalctl -q -o cat | grep -cF -f -", check=False, input=lab.admin_password).stdout == "0\n"


def test_the_watcher_would_have_seen_it(lab: Lab, host: Host, fleet_file: Path, tmp_path: Path) -> None:
    """The control: with pyinfra's own connector for the same host the same watcher does see it."""
    fleet = load_fleet(fleet_file)
    found = [(one.name, data_of(fleet, one, one.settings)) for one in fleet.hosts]
    (tmp_path / "stock.py").write_text(f"hosts = {found!r}\n")
    command = [str(PYINFRA), "-y", str(tmp_path / "stock.py"), "exec", "--sudo", "--", "sleep 5"]
    with on_host(lab, host, "/tmp/stop-2") as there:
        in_terminal(command, environment(fleet_file), [lab.admin_password])
    assert there.seen > 0, there.said


def test_it_is_asked_for_once(lab: Lab, host: Host, spark1: Host, tmp_path: Path) -> None:
    path = fleet(lab, [spark1, host], tmp_path / "fleet.yaml", defaults=OTHERS)
    rc, output = in_terminal([str(PYINFRA), "inventory.py", "deploy.py", "-y"], environment(path), [lab.admin_password])
    assert rc == 0, output
    assert output.count("sudo password (for every host that wants one): ") == 1
    assert lab.admin_password not in output


def test_a_wrong_one_fails_that_host_once_and_no_other(lab: Lab, host: Host, spark1: Host, tmp_path: Path) -> None:
    path = fleet(lab, [spark1, host], tmp_path / "fleet.yaml", defaults=OTHERS)
    since = host.run("date +%s").stdout.strip()
    rc, output = in_terminal([str(PYINFRA), "inventory.py", "deploy.py", "-y"], environment(path), ["no such thing"])
    assert rc == 1
    assert "[spark2] swap: sudo refused the password of this run: " in output
    assert "Traceback" not in output
    assert "[spark1] No changes" in output or "[spark1] Success" in output
    failures = host.sudo(
        f"journalctl -q -o cat --since=@{since} _COMM=sudo | grep -c '[a]uthentication failure'"
    ).stdout
    assert failures.strip() == "1", "a second try could lock the account"


def test_without_a_terminal_it_is_one_line(lab: Lab, host: Host, fleet_file: Path) -> None:
    result = subprocess.run(
        ["setsid", "--wait", PYINFRA, "inventory.py", "deploy.py", "-y"],
        cwd=ROOT,
        env=environment(fleet_file),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "set $SPARKFLEET_SUDO_PASSWORD_COMMAND to a command that prints it" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_an_unknown_host_key_is_refused(lab: Lab, host: Host, fleet_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    path = tmp_path / "fleet.yaml"
    path.write_text(fleet_file.read_text().replace(str(lab.known_hosts), str(tmp_path / "empty")))
    result = deploy(lab, path)
    assert result.rc == 1
    assert "found in known_hosts" in result.output
    assert "Traceback" not in result.output
    assert (tmp_path / "empty").read_text() == "", "nothing may be pinned without being asked"
