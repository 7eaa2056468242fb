"""Enrolment of real hosts: the ways to a host that an admin's ssh_config may name, and what may go wrong on them."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.auditing import verdicts
from tests.integration.deploying import ROOT, SPARKFLEET, wait_for
from tests.integration.enrolling import (
    ASKS,
    FREE,
    PASSWORD,
    SAME,
    Desk,
    Forwarder,
    add_user,
    fingerprint,
    give_key,
    traces,
)
from tests.lab import Host, Lab

pytestmark = pytest.mark.acceptance

INTERRUPT = "\x03"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.make_key()
    return made


def way(host: Host, user: str) -> tuple[str, ...]:
    """The words for a host at its forwarded port."""
    return (host.name, "--address", "127.0.0.1", "--port", str(host.port), "--user", user)


def hosts(desk: Desk) -> object:
    return yaml.safe_load(desk.fleet.read_text())["hosts"]


# -- ways to a host -----------------------------------------------------------------------------------------------


def test_ipv6_and_a_machine_that_has_come_in_between(lab: Lab, spark1: Host, spark2: Host, desk: Desk) -> None:
    give_key(spark1, "admin", desk.public)
    with Forwarder("::1", spark1) as door:
        words = ("spark1", "--address", "::1", "--port", str(door.port), "--user", "admin")
        said = desk.enrol(*words, answers=[(SAME, fingerprint(spark1))])
        assert said.rc == 0, said.output
        assert "spark1: a deploy would change:" in said.output
        assert hosts(desk) == {"spark1": {"address": "::1", "port": door.port, "user": "admin"}}
        assert desk.known_hosts.read_text().startswith(f"[::1]:{door.port} ssh-ed25519 ")
        written = desk.written()
        door.to = spark2
        for more in ((), ("--yes",), ("--fingerprint", fingerprint(spark2))):
            said = desk.enrol(*words, *more)
            assert said.rc == 3
            assert "another key is pinned" in said.output
            assert len(said.output.splitlines()) == 1
        assert desk.written() == written


@pytest.mark.parametrize("named", [False, True], ids=["found", "named"])
def test_a_key_that_is_in_an_agent_only(spark1: Host, desk: Desk, named: bool) -> None:
    user = f"agent{named:d}"
    add_user(spark1, user, sudo=FREE)
    asked = [("'s password:", PASSWORD)] if named else [("Install your key", ""), ("'s password:", PASSWORD)]
    with desk.agent(desk.key):
        assert not desk.key.exists()
        more = ("--key", f"{desk.key}.pub") if named else ()
        said = desk.enrol(*way(spark1, user), *more, answers=[(SAME, "yes"), *asked])
        assert said.rc == 0, said.output
        assert "spark1: a deploy would change:" in said.output
        assert hosts(desk) == {"spark1": {"address": "127.0.0.1", "port": spark1.port, "user": user}}
        assert spark1.sudo(f"cat ~{user}/.ssh/authorized_keys").stdout == desk.public


def test_jump_host_and_host_know_only_the_key_in_the_agent(lab: Lab, spark1: Host, spark2: Host, desk: Desk) -> None:
    add_user(spark1, "gate", sudo="")
    give_key(spark1, "gate", desk.public)
    give_key(spark2, "admin", desk.public)
    desk.config.write_text(
        f"Host gate\n  HostName 127.0.0.1\n  Port {spark1.port}\n  User gate\n  UserKnownHostsFile {lab.known_hosts}\n"
        f"  ProxyJump none\nHost far\n  HostName 10.0.2.2\n  Port {spark2.port}\n  User admin\n"
        "Host *\n  ProxyJump gate\n"
    )
    with desk.agent(desk.key):
        said = desk.enrol("far", answers=[(SAME, "yes"), ("sudo password on far: ", lab.admin_password)])
        assert said.rc == 0, said.output
        assert "far: a deploy would change:" in said.output


def test_a_host_key_alias(spark1: Host, desk: Desk) -> None:
    """ssh looks the alias up, pyinfra the address: both are pinned."""
    give_key(spark1, "admin", desk.public)
    desk.configure(f"Host one\n  HostName 127.0.0.1\n  Port {spark1.port}\n  User admin\n  HostKeyAlias factory\n")
    said = desk.enrol("one", "--fingerprint", fingerprint(spark1))
    assert said.rc == 0, said.output
    assert desk.known_hosts.read_text().startswith(f"factory,[127.0.0.1]:{spark1.port} ssh-ed25519 ")
    assert "one: a deploy would change:" in said.output


def test_without_a_person(lab: Lab, spark2: Host, desk: Desk) -> None:
    give_key(spark2, "admin", desk.public)

    def unattended(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["setsid", "--wait", SPARKFLEET, "enrol", *way(spark2, "admin"), *words],
            cwd=ROOT,
            env={**desk.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    said = unattended()
    assert said.returncode == 4
    assert said.stderr.count("\n") == 1
    assert "give it with --fingerprint" in said.stderr
    assert desk.written() == {}
    said = unattended("--fingerprint", fingerprint(spark2))
    assert said.returncode == 4
    assert "set $SPARKFLEET_SUDO_PASSWORD_COMMAND" in said.stderr
    assert not desk.fleet.exists()
    said = unattended(
        "--fingerprint", fingerprint(spark2), SPARKFLEET_SUDO_PASSWORD_COMMAND=f"cat {lab.admin_password_file}"
    )
    assert said.returncode == 0, said.stderr
    assert "spark2: a deploy would change:" in said.stdout
    assert lab.admin_password not in said.stdout + said.stderr


# -- a host in use ------------------------------------------------------------------------------------------------


def test_a_job_is_reported_and_goes_on(spark2: Host, lab: Lab, desk: Desk) -> None:
    give_key(spark2, "admin", desk.public)
    spark2.run("tmux new-session -d -s work 'nice python3 -c \"while True: pass\"'", user="alice")
    # From 10 s at half a core on it counts as a job.
    wait_for(
        spark2, "ps -u alice -o etimes=,pcpu=,comm= | awk '$1 >= 12 && $2 >= 60 && /python3/ { f = 1 } END { exit !f }'"
    )
    pids = spark2.run("pgrep -u alice | sort").stdout
    said = desk.enrol(*way(spark2, "admin"), answers=[(SAME, "yes"), ("sudo password on spark2: ", lab.admin_password)])
    assert said.rc == 0, said.output
    lines = said.output.splitlines()
    used = lines.index(next(line for line in lines if line.startswith("spark2: in use: load ")))
    assert any(line.startswith("spark2:   running: python3 of alice (pid ") for line in lines[used:])
    assert any(line.startswith("spark2:   kept open: tmux of alice (pid ") for line in lines[used:])
    assert used < lines.index("spark2: a deploy would change:")
    assert spark2.run("pgrep -u alice | sort").stdout == pids
    spark2.run("tmux kill-server", user="alice")


# -- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "rc"), [("no", 1), ("", 1), (f"SHA256:{'a' * 43}", 3), (INTERRUPT, 130)])
def test_a_host_key_that_is_not_confirmed(spark1: Host, desk: Desk, answer: str, rc: int) -> None:
    before = traces(spark1, "admin")
    said = desk.enrol(*way(spark1, "admin"), answers=[(SAME, answer)])
    assert said.rc == rc
    assert desk.written() == {}
    assert traces(spark1, "admin") == before


def test_interrupted_and_mistyped_and_then_taken_in(spark1: Host, desk: Desk) -> None:
    add_user(spark1, "frank", sudo=ASKS)
    ask = [("Install your key", "y"), ("'s password:", INTERRUPT)]
    said = desk.enrol(*way(spark1, "frank"), answers=[(SAME, "yes"), *ask])
    assert said.rc == 130, said.output
    assert list(desk.written()) == [desk.known_hosts.name], "pinned, as that was confirmed"
    # ssh itself asks up to three times in one connection.
    ask = [("Install your key", "y"), ("'s password:", "wrong"), ("'s password:", PASSWORD)]
    said = desk.enrol(*way(spark1, "frank"), answers=[*ask, ("sudo password on spark1: ", INTERRUPT)])
    assert said.rc == 130, said.output
    since = spark1.run("date +%s").stdout.strip()
    said = desk.enrol(*way(spark1, "frank"), answers=[("sudo password on spark1: ", "wrong")])
    assert said.rc == 1
    assert said.output.splitlines()[-1].endswith(": run the same command again")
    failures = spark1.sudo(f"journalctl -q -o cat --since=@{since} _COMM=sudo | grep -c '[a]uthentication failure'")
    assert failures.stdout == "1\n", "a second try could lock the account"
    assert not desk.fleet.exists()
    said = desk.enrol(*way(spark1, "frank"), answers=[("sudo password on spark1: ", PASSWORD)])
    assert said.rc == 0, said.output
    assert spark1.sudo("cat ~frank/.ssh/authorized_keys").stdout == desk.public, "installed once"


def test_a_home_that_others_can_write_is_named(spark1: Host, desk: Desk) -> None:
    add_user(spark1, "grace", sudo=FREE)
    spark1.sudo("chmod 777 ~grace")
    asked = [(SAME, "yes"), ("Install your key", ""), ("'s password:", PASSWORD)]
    said = desk.enrol(*way(spark1, "grace"), answers=asked)
    assert said.rc == 3
    assert said.output.splitlines()[-1].endswith("the home directory can be written by others: chmod go-w ~")
    spark1.sudo("chmod 755 ~grace")
    said = desk.enrol(*way(spark1, "grace"))
    assert said.rc == 0, said.output


def test_a_host_that_lets_nobody_in_by_password(spark1: Host, desk: Desk) -> None:
    add_user(spark1, "heidi", sudo=FREE)
    spark1.sudo("printf 'Match User heidi\\n PasswordAuthentication no\\n' >/etc/ssh/sshd_config.d/heidi.conf")
    spark1.sudo("systemctl reload ssh")
    said = desk.enrol(*way(spark1, "heidi"), "--yes", answers=[(SAME, "yes")])
    assert said.rc == 3
    last = said.output.splitlines()[-1]
    assert "no login to install the key with: heidi@127.0.0.1: Permission denied (publickey)" in last
    assert "put the public key into ~/.ssh/authorized_keys at the console" in last
    assert not desk.fleet.exists()


def test_nothing_answers(spark1: Host, desk: Desk) -> None:
    with Forwarder("127.0.0.1", spark1) as door:
        port = door.port
    said = desk.enrol("nobody", "--address", "127.0.0.1", "--port", str(port))
    assert said.rc == 3
    assert len(said.output.splitlines()) == 1
    assert f"Connection refused (try `ssh -p {port} 127.0.0.1` by hand)" in said.output
    assert desk.written() == {}
    # Where the jump host is the one that does not let in, it is named.
    desk.configure(
        f"Host gate\n  HostName 127.0.0.1\n  Port {spark1.port}\n  User nobody-there\n  StrictHostKeyChecking no\n"
        "  UserKnownHostsFile /dev/null\nHost far\n  HostName 10.0.2.2\n  ProxyJump gate\n  BatchMode yes\n"
    )
    said = desk.enrol("far", answers=[("'s password:", "wrong")] * 3)
    assert said.rc == 3
    assert "nobody-there@127.0.0.1: Permission denied" in said.output
    assert desk.written() == {}


# -- the fleet file -----------------------------------------------------------------------------------------------


def test_a_fleet_file_by_hand_keeps_every_byte(spark1: Host, desk: Desk) -> None:
    give_key(spark1, "admin", desk.public)
    text = (
        "# Ours; ask Ada before you touch it\nversion: 1\nknown_hosts: pins\ndefaults:\n  swap: {margin: 128MiB}\n"
        "groups:\n  lab: {}\n\nhosts:\n    old:   # in the rack\n        address: 192.0.2.7\n\n# the end\n"
    )
    desk.fleet.write_text(text)
    desk.fleet.chmod(0o640)
    words = (*way(spark1, "admin"), "--group", "lab", "--key", str(desk.key))
    said = desk.enrol(*words, answers=[(SAME, "yes")])
    assert said.rc == 0, said.output
    added = (
        f"    spark1:\n        address: 127.0.0.1\n        port: {spark1.port}\n        user: admin\n"
        "        groups: [lab]\n        ssh_key: ~/.ssh/id_ed25519\n"
    )
    assert desk.fleet.read_text() == text.replace("192.0.2.7\n", f"192.0.2.7\n{added}")
    assert desk.fleet.stat().st_mode & 0o777 == 0o640
    written = desk.written()
    said = desk.enrol(*words)
    assert (said.rc, desk.written()) == (0, written), said.output
    said = desk.enrol("twin", *words[1:])
    assert said.rc == 4
    assert f"port {spark1.port} is already the host spark1" in said.output
    said = desk.enrol(*words[:5], "--user", "carol")
    assert said.rc == 4
    assert f"{desk.fleet}:12: spark1 is in the fleet with user admin, not carol" in said.output
    assert desk.written() == written


def test_through_a_jump_host_with_a_sudo_password(lab: Lab, spark1: Host, spark2: Host, desk: Desk) -> None:
    """All of it is in ssh_config, where the deploy finds it as well: the fleet file has nothing but the name."""
    add_user(spark2, "carol", sudo=ASKS)
    give_key(spark2, "carol", desk.public)
    desk.configure_jump(lab, spark1, spark2, "carol")
    said = desk.enrol("spark2", "--fingerprint", fingerprint(spark2), answers=[("sudo password on spark2: ", PASSWORD)])
    assert said.rc == 0, said.output
    lines = said.output.splitlines()
    assert lines[0] == f"spark2: host key of [10.0.2.2]:{spark2.port}: ssh-ed25519 {fingerprint(spark2)}"
    assert "spark2: sudo: with a password, which is right" in lines
    assert "spark2: a deploy would change:" in lines
    assert PASSWORD not in said.output
    assert yaml.safe_load(desk.fleet.read_text())["hosts"] == {"spark2": None}
    password = f"echo {shlex.quote(PASSWORD)}"
    audited = subprocess.run(
        [SPARKFLEET, "audit", "--no-store", "--json", "-", "--measure", "swap"],
        env={**desk.environment, "SPARKFLEET_SUDO_PASSWORD_COMMAND": password},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert audited.returncode == 1, "an audit goes the same way, and says that swap is on: " + audited.stderr
    assert ("SPK-SWAP-01", "spark2") in verdicts(audited)
    assert verdicts(audited, "unreachable") == verdicts(audited, "error") == set()
