"""uv on hosts without internet: installed by hash, repaired, upgraded and downgraded, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.deploying import Deployed, all_but, deploy, fleet
from tests.lab import Host, Lab

UV = "/usr/local/bin/uv"
# An older release, for the upgrade; the hash is that of its wheel for x86_64 Linux.
OLDER = {"version": "0.13.8", "sha256": {"x86_64": "e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984"}}
OTHERS = all_but("uv")


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    return spark1, spark2


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fleet(lab, hosts, tmp_path_factory.mktemp("fleet") / "fleet.yaml", defaults=OTHERS)


@pytest.fixture(scope="module")
def older(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "fleet.yaml"
    return fleet(lab, hosts, path, defaults={**OTHERS, "uv": OLDER})


@pytest.fixture(scope="module")
def first(lab: Lab, hosts: tuple[Host, Host], older: Path) -> Deployed:
    hosts[0].sudo("printf '#!/bin/sh\\necho another uv\\n' > /usr/local/bin/uv && chmod 755 /usr/local/bin/uv")
    return deploy(lab, older)


def test_the_pinned_release_is_there_for_everyone(first: Deployed, hosts: tuple[Host, Host]) -> None:
    assert first.rc == 0, first.output
    for host in hosts:
        assert host.run("uv --version", user="alice").stdout.startswith(f"uv {OLDER['version']} ")
        assert host.run("stat -Lc '%U %a' /usr/local/bin/uv /usr/local/bin/uvx").stdout.split() == ["root", "755"] * 2
        assert host.run("ls -A .cache/sparkfleet-uploads").stdout == "", "the upload must not be left behind"


def test_an_upgrade_repairs_drift_on_the_way_and_a_second_run_changes_nothing(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    upgraded = deploy(lab, fleet_file)
    assert upgraded.rc == 0, upgraded.output
    for host in hosts:
        assert "uv 0.13.9 " in host.run("uv --version", user="alice").stdout
    again = deploy(lab, fleet_file)
    assert again.rc == 0, again.output
    assert [again.changes(host.name) for host in hosts] == [{}, {}]


def test_drift_is_found_named_and_repaired(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    """Edited with its times put back, mode, dangling link; deleted, replaced by another, a stray configuration."""
    store = "/opt/sparkfleet/uv/0.13.9"
    hosts[0].sudo(
        f"cp -p {store}/uv /root/uv && printf x >> {store}/uv && truncate -s -2 {store}/uv && printf y >> {store}/uv"
        f" && touch -r /root/uv {store}/uv && chmod 777 {store}/uvx && ln -sfn /nowhere /usr/local/bin/uvx"
    )
    hosts[1].sudo(f"rm {store}/uvx && echo '{{' > {store}/manifest.json && rm {UV} && cp /bin/true {UV}")
    hosts[1].sudo("mkdir -p /etc/uv && printf '# managed by sparkfleet\\nnonsense = 1\\n' > /etc/uv/uv.toml")
    planned = deploy(lab, fleet_file, "--dry")
    real = deploy(lab, fleet_file)
    assert real.rc == 0, real.output
    for host in hosts:
        assert len(planned.changes(host.name)["uv"]) >= 2, planned.output
        assert planned.changes(host.name) == real.changes(host.name)
        assert "uv 0.13.9 " in host.run("uv --version && uvx --version", user="alice").stdout
    assert "uv was changed" in str(real.changes(hosts[0].name))
    again = deploy(lab, fleet_file)
    assert [again.changes(host.name) for host in hosts] == [{}, {}]


def test_a_configuration_that_uv_cannot_read_never_gets_there(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    good = fleet(lab, hosts[:1], tmp_path / "good.yaml", defaults={**OTHERS, "uv": {"config": {"offline": True}}})
    assert deploy(lab, good).rc == 0
    bad = fleet(lab, hosts[:1], tmp_path / "bad.yaml", {**OTHERS, "uv": {**OLDER, "config": {"ofline": True}}})
    result = deploy(lab, bad)
    assert result.rc == 1
    (line, *_) = result.lines(hosts[0].name, "uv")
    assert "uv.config in the fleet file is not what uv 0.13.8 takes" in line
    assert "ofline" in line
    assert "offline = true" in hosts[0].run("cat /etc/uv/uv.toml").stdout
    assert hosts[0].run("uv cache dir", user="alice").rc == 0
    assert "uv 0.13.9 " in hosts[0].run("uv --version").stdout, "the release that reads its configuration stays in use"


def test_a_wheel_that_cannot_be_had_is_one_line_and_the_old_uv_stays(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    wrong = {"version": "0.13.7", "sha256": {"x86_64": "0" * 64}}
    path = fleet(lab, hosts[:1], tmp_path / "wrong.yaml", defaults={**OTHERS, "uv": wrong})
    result = deploy(lab, path)
    assert result.rc == 1
    assert "cannot download uv==0.13.7 for x86_64" in result.output
    assert "Traceback" not in result.output
    assert "uv 0.13.9 " in hosts[0].run("uv --version").stdout


def test_downgrade_and_removal(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], older: Path, tmp_path: Path
) -> None:
    assert deploy(lab, older).rc == 0
    assert f"uv {OLDER['version']} " in hosts[1].run("uv --version", user="bob").stdout
    absent = fleet(lab, hosts, tmp_path / "absent.yaml", defaults={**OTHERS, "uv": {"state": "absent"}})
    result = deploy(lab, absent)
    assert result.rc == 0, result.output
    assert hosts[0].run("uv").stdout == "another uv\n", "what was there before comes back"
    assert hosts[1].run("ls -d /usr/local/bin/uvx /etc/uv/uv.toml /opt/sparkfleet/uv", check=False).stdout == ""
