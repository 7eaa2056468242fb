"""Enrolment of real hosts, as an admin sees it at the terminal. The rarer cases are in tests/acceptance."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.integration.enrolling import FREE, PASSWORD, SAME, Desk, add_user, fingerprint, give_key, traces
from tests.lab import Host, Lab


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.make_key()
    return made


def test_a_factory_host_is_taken_in_and_a_second_run_changes_nothing(spark1: Host, desk: Desk) -> None:
    add_user(spark1, "carol", sudo=FREE)
    spark1.run("tmux new-session -d -s work 'sleep 86400'", user="alice")
    words = ("spark1", "--address", "127.0.0.1", "--port", str(spark1.port), "--user", "carol")
    before = traces(spark1, "carol")

    said = desk.enrol(*words, answers=[(SAME, "yes"), ("Install your key", "y"), ("'s password:", PASSWORD)])
    assert said.rc == 0, said.output
    lines = said.output.splitlines()
    assert lines[0] == f"spark1: host key of [127.0.0.1]:{spark1.port}: ssh-ed25519 {fingerprint(spark1)}"
    assert lines.index("spark1: login: the key works for carol") < lines.index("spark1: sudo: without a password")
    in_use = [line for line in lines if line.startswith("spark1:   ")]
    assert any(line.startswith("spark1:   kept open: tmux of alice (pid ") for line in in_use), in_use
    assert not any("carol" in line for line in in_use), "its own login is no use by somebody"
    plan = lines[lines.index("spark1: a deploy would change:") :]
    assert "  swap: /etc/fstab: would comment out the swap entry in line 11" in plan
    assert PASSWORD not in said.output

    assert yaml.safe_load(desk.fleet.read_text())["hosts"] == {
        "spark1": {"address": "127.0.0.1", "port": spark1.port, "user": "carol"}
    }
    assert spark1.sudo("cat ~carol/.ssh/authorized_keys").stdout == desk.public
    after = traces(spark1, "carol")
    assert before.system == after.system, "enrolment asks a dry run, and deploys nothing"

    written = desk.written()
    said = desk.enrol(*words)
    assert (said.rc, said.output.splitlines()[-1]) == (
        0,
        f"spark1: already enrolled in {desk.fleet}: nothing was changed",
    )
    assert desk.written() == written
    assert traces(spark1, "carol") == after


def test_a_key_that_is_not_the_host_s_is_refused(lab: Lab, spark1: Host, spark2: Host, desk: Desk) -> None:
    words = ("spark1", "--address", "127.0.0.1", "--port", str(spark1.port), "--user", "admin")
    said = desk.enrol(*words, "--fingerprint", fingerprint(spark2))
    assert said.rc == 3
    assert "the host offers the ssh-ed25519 key " + fingerprint(spark1) in said.output
    assert desk.written() == {}

    pinned = f"[127.0.0.1]:{spark1.port} {spark2.console_run('cat /etc/ssh/ssh_host_ed25519_key.pub').stdout}"
    desk.known_hosts.write_text(pinned)
    said = desk.enrol(*words, "--fingerprint", fingerprint(spark1), "--yes")
    assert said.rc == 3
    assert len(said.output.splitlines()) == 1
    assert f"{desk.known_hosts}:1: another key is pinned for [127.0.0.1]:{spark1.port}" in said.output
    assert f"remove the line: ssh-keygen -R '[127.0.0.1]:{spark1.port}' -f {desk.known_hosts}" in said.output
    assert desk.written() == {desk.known_hosts.name: pinned}, "a fingerprint that was given replaces no pin"


def test_a_user_without_sudo_is_refused(spark1: Host, desk: Desk) -> None:
    add_user(spark1, "dave", sudo="")
    give_key(spark1, "dave", desk.public)
    words = ("spark1", "--address", "127.0.0.1", "--port", str(spark1.port), "--user", "dave")
    said = desk.enrol(*words, "--fingerprint", fingerprint(spark1), answers=[("sudo password on spark1: ", PASSWORD)])
    assert said.rc == 1
    assert said.output.splitlines()[-1].startswith("sparkfleet: spark1: dave may not use sudo (")
    assert said.output.splitlines()[-1].endswith("): as an admin of the host: usermod -aG sudo dave")
    assert not desk.fleet.exists()
