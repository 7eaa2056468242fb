"""Measures taken off and put back: a host is the same before and after, file by file."""

from __future__ import annotations

from pathlib import Path

from sparkfleet.settings import HostSettings
from tests.compliance.standins import PREPARE
from tests.integration.auditing import SETTINGS
from tests.integration.deploying import deploy, fleet
from tests.integration.host_state import state_of
from tests.integration.sessions import KILLABLE, fresh_session
from tests.lab import Host, Lab

SSH = {"confirm_within": "300s"}


def test_two_measures_removed_and_put_back(lab: Lab, spark1: Host, spark2: Host, tmp_path: Path) -> None:
    hosts = (spark1, spark2)
    for host in hosts:
        host.sudo("mkdir -p /usr/local/cuda/bin /usr/local/cuda/lib64")  # stands in for the toolkit
    all_of_them = fleet(lab, hosts, tmp_path / "all.yaml", {"ssh": SSH})
    assert deploy(lab, all_of_them).rc == 0
    with_all = [state_of(host) for host in hosts]
    absent = {"state": "absent"}
    removed = deploy(lab, fleet(lab, hosts, tmp_path / "two.yaml", {"ssh": {**SSH, **absent}, "cuda_env": absent}))
    assert removed.rc == 0, removed.output
    for host in hosts:
        assert fresh_session(host, "alice") == KILLABLE
        assert host.run("echo $CUDA_HOME", user="alice", fresh=True).stdout == "\n"
        assert host.run("uv --version", user="bob").rc == 0
    assert deploy(lab, all_of_them).rc == 0
    for host, before in zip(hosts, with_all, strict=True):
        assert sorted(state_of(host) ^ before) == []


def test_all_measures_removed_leave_the_host_as_it_was(lab: Lab, spark1: Host, spark2: Host, tmp_path: Path) -> None:
    hosts = (spark1, spark2)
    for host in hosts:
        host.clean()  # of the test above
        host.sudo(PREPARE)
    before = [state_of(host) for host in hosts]
    assert deploy(lab, fleet(lab, hosts, tmp_path / "all.yaml", {"ssh": SSH}, SETTINGS)).rc == 0
    absent: dict[str, dict[str, str]] = {name: {"state": "absent"} for name in HostSettings.model_fields}
    path = fleet(lab, hosts, tmp_path / "absent.yaml", {**absent, "ssh": {**SSH, "state": "absent"}})
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    for host, was in zip(hosts, before, strict=True):
        assert sorted(state_of(host) ^ was) == []
        assert fresh_session(host, "alice") == KILLABLE
        assert host.sudo("test -e /var/lib/sparkfleet/applied.json", check=False).rc == 1
    again = deploy(lab, path)
    assert [again.changes(host.name) for host in hosts] == [{}, {}]
