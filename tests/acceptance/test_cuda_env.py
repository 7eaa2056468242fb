"""The CUDA environment in every kind of session, broken in the ways people break it, on two hosts.

The toolkit is an empty tree of directories here: what counts is who gets which values. The order of the tests is the
order of the story; each begins where the one before left the hosts.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.integration.deploying import Deployed, all_but, deploy, fleet, wait_for
from tests.lab import Host, Lab

PROFILE = "/etc/profile.d/zz-sparkfleet-cuda.sh"
SERVICES = "/etc/sparkfleet/cuda.env"
LIBRARIES = "/etc/ld.so.conf.d/sparkfleet-cuda.conf"
BIN, LIB = "/usr/local/cuda/bin", "/usr/local/cuda/lib64"
MAKE_CUDA = "mkdir -p /usr/local/cuda-13.0/bin /usr/local/cuda-13.0/lib64 && ln -sfn cuda-13.0 /usr/local/cuda"
SAME = {
    "CUDA_HOME": "/usr/local/cuda",
    "TORCH_CUDA_ARCH_LIST": "12.1a",
    "TRITON_PTXAS_PATH": f"{BIN}/ptxas",
    "TRITON_PTXAS_BLACKWELL_PATH": f"{BIN}/ptxas",
    "SITE_NOTE": "two words; more=1",
}
# What was on the second host before us, the last line without an end: it comes after ours, or back as it was.
THEIRS = "# by hand\nLD_LIBRARY_PATH=/opt/site/lib:\nPATH=/usr/local/bin:/usr/bin:/bin:/snap/bin:"
REPORT = "/usr/local/bin/report-environment"
NAMES = "|".join((*SAME, "PATH", "LD_LIBRARY_PATH"))
REPORT_SCRIPT = f"#!/bin/sh\n/usr/bin/env | /bin/grep -E '^({NAMES})=' | /bin/sed \"s/^/$1 /\"\n"
CRON = "/var/tmp/environment-of-cron"
# A login shell by ssh, with what a user starts from it. tmux types into a real window of its own.
ALICE = f"""\
{REPORT} login
bash -lc '{REPORT} nested-login; bash -c "sh -c \\"sh -lc \\\\\\"{REPORT} nested-deeper\\\\\\"\\""'
systemd-run --user --quiet --wait --pipe {REPORT} user-service
tmux -L report new-session -d
tmux -L report send-keys '{REPORT} tmux > ~/tmux.part; mv ~/tmux.part ~/tmux.out' Enter
until [ -e ~/tmux.out ]; do sleep 0.2; done
cat ~/tmux.out; rm ~/tmux.out; tmux -L report kill-server
TORCH_CUDA_ARCH_LIST=9.0 LD_LIBRARY_PATH=/mine::/more: bash -lc '{REPORT} own-values'
bash -c 'set -eu; . {PROFILE}; {REPORT} strict-bash'; dash -c 'set -eu; . {PROFILE}; {REPORT} strict-dash'
zsh -fc 'set -eu; . {PROFILE}; {REPORT} strict-zsh'
"""
ROOT = f"""\
sudo -i {REPORT} sudo-i; su - alice -c '{REPORT} su'; su - bob -c '{REPORT} su-to-zsh'
systemd-run --quiet --wait --pipe -p EnvironmentFile=-{SERVICES} {REPORT} system-service
systemd-run --quiet --wait --pipe {REPORT} service-that-does-not-ask"""
KINDS = {
    *("ssh-command", "login", "nested-login", "nested-deeper", "user-service", "tmux", "strict-bash", "strict-dash"),
    *("strict-zsh", "zsh-command", "zsh-login", "sudo-i", "su", "su-to-zsh", "system-service"),
}


def parse(output: str) -> dict[str, dict[str, str]]:
    """Kind of session → variables, from the reports among other output (a login shell may greet)."""
    found: dict[str, dict[str, str]] = {}
    for line in output.splitlines():
        kind, _, assignment = line.partition(" ")
        name, equals, value = assignment.partition("=")
        if equals and name in NAMES.split("|"):
            assert name not in found.setdefault(kind, {}), line
            found[kind][name] = value
    return found


def login(host: Host, user: str, script: str) -> str:
    """What a login shell of a user says that reads this script: ssh without a command. Errors fail the test."""
    ssh, *target = host.client.words(user)
    command = [ssh, "-T", "-o", "ControlPath=none", *target]
    result = subprocess.run(command, input=script, capture_output=True, text=True, timeout=120, check=False)
    assert result.stderr == ""
    return result.stdout


def sessions(host: Host) -> dict[str, dict[str, str]]:
    """The reports from every kind of session of a host, but for cron."""
    return parse(
        host.run(f"{REPORT} ssh-command", user="alice", fresh=True).stdout
        + login(host, "alice", ALICE)
        + host.run(f"{REPORT} zsh-command", user="bob", fresh=True).stdout
        + login(host, "bob", f"{REPORT} zsh-login\n")
        + host.sudo(ROOT, fresh=True, timeout=120).stdout
    )


def check(kind: str, found: Mapping[str, str], theirs: bool) -> None:
    """That a session has our values, and paths with our directory first, once, and no empty elements."""
    same = {name: value for name, value in found.items() if name not in ("PATH", "LD_LIBRARY_PATH")}
    assert same == SAME, kind
    path = found["PATH"].split(":")
    assert path[0] == BIN, kind
    assert path.count(BIN) == 1, kind
    assert "" not in path, kind
    assert {"/usr/bin", "/bin"} <= set(path), kind
    # What the host's own /etc/environment says is kept behind ours; Debian's sudo does not read that file.
    kept = ":/opt/site/lib" if theirs and kind != "sudo-i" else ""
    assert found["LD_LIBRARY_PATH"] == LIB + kept, kind


def manifest(host: Host) -> dict[str, str]:
    """Path → mode, owner and SHA-256 (of a link: its target) of all that is in /etc."""
    listing = host.sudo(
        "cd /etc && find . ! -type l -printf '%p\\t%m %U:%G\\n' -o -printf '%p\\t%l\\n'"
        ' && find . -type f -exec sha256sum {} + | awk \'{print "sum of " $2 "\\t" $1}\''
    ).stdout
    return dict(line.split("\t", 1) for line in listing.splitlines())


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    for host in (spark1, spark2):
        host.sudo(f"printf %s {shlex.quote(REPORT_SCRIPT)} > {REPORT}; chmod 755 {REPORT}")
        host.sudo(f"echo '* * * * * alice {REPORT} cron > {CRON}.part; mv {CRON}.part {CRON}' > /etc/cron.d/report")
        # alice lingers: her user manager and her job are older than any deploy, and have to outlive all of them.
        host.sudo("loginctl enable-linger alice")
        host.run("tmux -L mine new-session -d; systemd-run --user --quiet --unit=job sleep infinity", user="alice")
    spark2.sudo(f"printf %s {shlex.quote(THEIRS)} > /etc/environment; chmod 664 /etc/environment")
    return spark1, spark2


@pytest.fixture(scope="module")
def before(hosts: tuple[Host, Host]) -> dict[str, dict[str, str]]:
    return dict(zip((host.name for host in hosts), at_once(manifest, hosts), strict=True))


T = TypeVar("T")


def at_once(look: Callable[[Host], T], hosts: Sequence[Host]) -> list[T]:
    """What `look` finds on each host, at the same time: most of it is waiting for the other end."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(look, hosts))


class Fleet:
    """Deploys with settings of cuda_env alone, and others for one host where asked for."""

    def __init__(self, lab: Lab, hosts: tuple[Host, Host], path: Path) -> None:
        self.lab, self.hosts, self.path = lab, hosts, path

    def deploy(
        self, *arguments: str, by_host: Mapping[str, Mapping[str, Any]] | None = None, **all_hosts: Any
    ) -> Deployed:
        defaults = all_but("cuda_env")
        ours = {"variables": {"SITE_NOTE": SAME["SITE_NOTE"]}, **all_hosts}
        by_name = {name: {"cuda_env": settings} for name, settings in (by_host or {}).items()}
        path = fleet(self.lab, self.hosts, self.path, defaults={**defaults, "cuda_env": ours}, settings=by_name)
        return deploy(self.lab, path, *arguments)


@pytest.fixture(scope="module")
def sparks(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(lab, hosts, tmp_path_factory.mktemp("fleet") / "fleet.yaml")


def changes(result: Deployed, host: Host) -> list[str]:
    return result.changes(host.name).get("cuda_env", [])


def test_every_kind_of_session_gets_the_same_values(
    sparks: Fleet, hosts: tuple[Host, Host], before: dict[str, dict[str, str]]
) -> None:
    for host in hosts:
        host.sudo(MAKE_CUDA)
    result = sparks.deploy()
    assert result.rc == 0, result.output
    for host in hosts:
        host.sudo(f"rm -f {CRON}")
        assert changes(result, host) == [
            "/etc/environment: add our block",
            f"{PROFILE}: create",
            f"{SERVICES}: create",
            "user-managers: read /etc/environment again (daemon-reload)",
        ]
    for host, found in zip(hosts, at_once(sessions, hosts), strict=True):
        theirs = host is hosts[1]
        own, silent = found.pop("own-values"), found.pop("service-that-does-not-ask")
        assert set(found) == KINDS
        for kind, values in found.items():
            check(kind, values, theirs)
        assert (own["TORCH_CUDA_ARCH_LIST"], own["LD_LIBRARY_PATH"]) == ("9.0", f"{LIB}:/mine:/more")
        assert set(silent) == {"PATH"}
        assert host.run("stat -c %a /etc/environment").stdout.strip() == ("664" if theirs else "644")


def test_a_second_deploy_changes_nothing(sparks: Fleet, hosts: tuple[Host, Host]) -> None:
    second = sparks.deploy()
    assert second.rc == 0, second.output
    for host in hosts:
        assert second.changes(host.name) == {}


def test_a_cron_job_gets_them_but_for_path_which_cron_sets_itself(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        wait_for(host, f"test -e {CRON}", timeout=90)
        found = parse(host.run(f"cat {CRON}").stdout)["cron"]
        assert found.pop("PATH") == "/usr/bin:/bin"  # Debian's cron; crontabs set their own
        check("cron", {**found, "PATH": f"{BIN}:/usr/bin:/bin"}, theirs=host is hosts[1])


def break_it(first: Host, second: Host) -> None:
    """Seven kinds of drift: edited (twice), overridden, mode, masked, deleted, and the old file put back."""
    first.sudo(f"sed -i 's/12.1a/9.0/' {PROFILE}; chmod 600 {SERVICES}")
    first.sudo(
        "sed -i 's/^CUDA_HOME=.*/CUDA_HOME=\\/opt\\/other/' /etc/environment; echo CUDA_HOME=/opt/x >> /etc/environment"
    )
    second.sudo(f"ln -sf /dev/null {PROFILE}; rm {SERVICES}; printf %s {shlex.quote(THEIRS)} > /etc/environment")


def test_drift_is_named_by_a_dry_run_and_repaired_by_the_next_deploy(sparks: Fleet, hosts: tuple[Host, Host]) -> None:
    break_it(*hosts)
    planned = sparks.deploy("--dry")
    real = sparks.deploy()
    assert real.rc == 0, real.output
    for host in hosts:
        assert len(changes(planned, host)) == 4, planned.output
        assert changes(planned, host) == changes(real, host)
        assert host.run(f"{REPORT} ssh", user="alice", fresh=True).stdout.count("/opt/other") == 0
    assert sparks.deploy("--dry").changes(hosts[0].name) == {}
    assert hosts[0].run("grep -c CUDA_HOME=/opt/x /etc/environment").stdout.strip() == "1"  # theirs, before ours
    hosts[0].sudo("sed -i '/CUDA_HOME=.opt.x/d' /etc/environment")


def test_ldconfig_replaces_the_export_and_its_cache_is_kept_fresh(sparks: Fleet, hosts: tuple[Host, Host]) -> None:
    """On the first host; from the second one the toolkit goes meanwhile, and another file sets a value of ours."""
    first, second = hosts
    first.sudo(f"cp -L $(ldconfig -p | sed -n 's/.*libz.so.1 .*=> //p;s/.*libacl.so.1 .*=> //p' | head -1) {LIB}/")
    second.sudo("rm /usr/local/cuda")
    by_host = {first.name: {"ld_library_path": "ldconfig"}}
    result = sparks.deploy(by_host=by_host)
    assert result.rc == 0, result.output
    assert f"{LIBRARIES}: create" in changes(result, first)
    assert f"/etc/ld.so.cache: ldconfig, for {LIBRARIES}" in changes(result, first)
    assert f"=> {LIB}/" in first.run("/sbin/ldconfig -p").stdout
    assert "LD_LIBRARY_PATH" not in parse(login(first, "alice", f"{REPORT} login\n"))["login"]
    assert f"{PROFILE}: remove" in changes(result, second)
    assert "CUDA_HOME" not in parse(login(second, "alice", f"{REPORT} login\n"))["login"]
    first.sudo("ldconfig -f /dev/null")  # as a package's trigger that failed half-way
    second.sudo(f"{MAKE_CUDA}; echo export TORCH_CUDA_ARCH_LIST=8.9 > /etc/profile.d/zzz-local.sh")
    result = sparks.deploy(by_host=by_host)
    assert changes(result, first) == [f"/etc/ld.so.cache: ldconfig, for {LIBRARIES}"]
    assert f"=> {LIB}/" in first.run("/sbin/ldconfig -p").stdout
    assert result.rc == 1
    (line,) = {line for line in result.lines(second.name, "cuda_env") if "not the same in every session" in line}
    assert "/etc/profile.d/zzz-local.sh sets TORCH_CUDA_ARCH_LIST" in line
    second.sudo("rm /etc/profile.d/zzz-local.sh")
    result = sparks.deploy(by_host={first.name: {"ld_library_path": "none"}})
    assert result.rc == 0, result.output
    assert f"=> {LIB}/" not in first.run("/sbin/ldconfig -p").stdout
    assert first.run(f"test -e {LIBRARIES}", check=False).rc == 1
    assert changes(result, second) == []


def test_it_holds_after_a_reboot_and_no_deploy_ended_what_users_run(sparks: Fleet, hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        running = host.run("tmux -L mine list-sessions; systemctl --user is-active job", user="alice")
        assert running.stdout.count("\n") == 2
    hosts[1].reboot()
    for kind, values in sessions(hosts[1]).items():
        if kind in KINDS:
            check(kind, values, theirs=True)
    assert sparks.deploy("--dry").changes(hosts[1].name) == {}


def test_removal_gives_every_byte_of_etc_back(
    sparks: Fleet, hosts: tuple[Host, Host], before: dict[str, dict[str, str]]
) -> None:
    result = sparks.deploy(state="absent")
    assert result.rc == 0, result.output
    for host, after in zip(hosts, at_once(manifest, hosts), strict=True):
        assert after == before[host.name]
        assert "CUDA_HOME" not in host.run("env", user="bob", fresh=True).stdout
        service = host.run(f"systemd-run --user --quiet --wait --pipe {REPORT} user-service", user="alice", fresh=True)
        assert "CUDA_HOME" not in service.stdout
    again = sparks.deploy("--dry", state="absent")
    assert [again.changes(host.name) for host in hosts] == [{}, {}]
