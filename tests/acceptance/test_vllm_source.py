"""vLLM from source on hosts, with a checkout of its layout: in the background, capped, cut off, gone on with, gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.building import GATE, UNIT, Material, finished, settings, with_tools
from tests.integration.deploying import all_but, deploy, fleet
from tests.integration.watching import until
from tests.lab import Host, Lab

STORE = "/opt/sparkfleet/vllm-source"
STATE = "/var/lib/sparkfleet/vllm-source"
OTHERS = all_but("uv", "stack", "training_slice", "vllm_source")


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    for host in (spark1, spark2):
        with_tools(host)
    return spark1, spark2


@pytest.fixture(scope="module")
def material(hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def wanted(material: Material, hosts: tuple[Host, Host]) -> str:
    commit = material.commit()
    for host in hosts:
        material.bring(host)
    return commit


def written(lab: Lab, hosts: tuple[Host, ...], path: Path, commit: str, **more: str) -> Path:
    return fleet(lab, hosts, path, defaults={**OTHERS, "vllm_source": settings(commit, **more)})


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, hosts: tuple[Host, Host], wanted: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(lab, hosts, tmp_path_factory.mktemp("fleet") / "fleet.yaml", wanted)


def answer(host: Host, user: str = "alice") -> str:
    return host.run("spark-vllm-python -c 'import vllm; print(vllm.answer())'", user=user, check=False).stdout.strip()


def test_a_host_without_the_measure_is_left_alone(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    path = fleet(lab, hosts, tmp_path / "off.yaml", defaults=all_but("vllm_source"))
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    for host in hosts:
        assert result.changes(host.name) == {}
        assert host.run(f"ls -d {STORE} {STATE}", check=False).rc != 0


def test_the_build_runs_in_the_background_under_its_cap_and_as_nobodys_account(
    lab: Lab, hosts: tuple[Host, Host], wanted: str, fleet_file: Path
) -> None:
    """The first build waits at its second object, so that it can be looked at."""
    host = hosts[0]
    for each in hosts:
        each.sudo(f"rm -f {GATE}; mkfifo -m 666 {GATE}")
    planned = deploy(lab, fleet_file, "--dry")
    assert f"build vLLM {wanted[:12]}" in str(planned.changes(host.name))
    assert host.run(f"ls -d {STORE}", check=False).rc != 0
    result = deploy(lab, fleet_file)
    assert result.rc == 0, result.output
    assert "in the background: spark-vllm-source status" in result.output
    until(host, f"pgrep -u sparkfleet-build -fx 'cat {GATE}'")
    group = host.sudo(f"cat /proc/$(pgrep -u sparkfleet-build -fx 'cat {GATE}')/cgroup").stdout.strip()
    assert group == f"0::/training.slice/{UNIT}"
    score = host.sudo(f"cat /proc/$(pgrep -u sparkfleet-build -fx 'cat {GATE}')/oom_score_adj").stdout.strip()
    assert score == "900"
    limit = host.run(f"cat /sys/fs/cgroup/training.slice/{UNIT}/memory.max").stdout.strip()
    assert limit == str(400 * 2**20)
    assert "compile" in host.run("spark-vllm-source status", user="bob", check=False).stdout
    again = deploy(lab, fleet_file)
    assert (again.rc, again.changes(host.name)) == (0, {}), again.output
    assert f"vLLM {wanted[:12]} is being built (step compile since " in again.output


def test_a_build_that_is_cut_off_by_a_reset_goes_on_with_what_was_compiled(
    lab: Lab, hosts: tuple[Host, Host], wanted: str, fleet_file: Path
) -> None:
    host = hosts[0]
    until(host, f"pgrep -u sparkfleet-build -fx 'cat {GATE}'")
    host.sudo("sync")
    host.hard_reset()
    host.sudo(f"rm -f {GATE}")
    for each in hosts[1:]:  # the other one is let go on
        each.sudo(f"timeout 60 sh -c ': > {GATE}'; rm -f {GATE}")
    result = deploy(lab, fleet_file)
    assert result.rc == 0, result.output
    assert f"go on to build vLLM {wanted[:12]} at the step compile" in str(result.changes(host.name))
    for each in hosts:
        assert "in use: " + wanted[:12] in finished(each)
        for user in ("alice", "bob"):
            assert answer(each, user) == "42"
    log = host.run(f"cat {STATE}/{wanted[:12]}-*.log", user="alice").stdout
    assert log.count("-c -o build/first.o.new") == 1
    assert log.count("-c -o build/second.o.new") == 1
    again = deploy(lab, fleet_file)
    assert [again.changes(each.name) for each in hosts] == [{}, {}], again.output


def test_what_was_built_is_roots_and_an_edit_is_built_anew(
    lab: Lab, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    host = hosts[0]
    assert host.sudo(f"find {STORE} ! -user root -o ! -type l -perm /022").stdout == ""
    assert host.run(f"touch {STORE}/current/x", user="alice", check=False).rc != 0
    assert host.run("spark-vllm-source verify", user="alice").rc == 0
    host.sudo(f"sh -c 'echo answer = None >> $(echo {STORE}/current/lib/python3*/site-packages/vllm/__init__.py)'")
    assert host.run("spark-vllm-source verify", user="alice", check=False).rc == 1
    result = deploy(lab, fleet_file)
    assert result.rc == 0, result.output
    assert "anew, since files of" in str(result.changes(host.name))
    finished(host)
    assert answer(host) == "42"
    assert deploy(lab, fleet_file).changes(host.name) == {}


def test_a_commit_that_does_not_compile_leaves_the_build_in_use(
    lab: Lab, hosts: tuple[Host, Host], material: Material, tmp_path: Path
) -> None:
    host = hosts[1]
    broken = material.commit({"csrc/second.c": "int answer(void) { return 42 }\n"})
    material.bring(host)
    path = written(lab, (host,), tmp_path / "broken.yaml", broken)
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    told = finished(host)
    assert "error: expected" in told
    assert f"log: {STATE}/{broken[:12]}-" in told
    assert answer(host) == "42"
    planned = deploy(lab, path, "--dry")
    assert "at the step compile (uv: exit status 2" in str(planned.changes(host.name))


def test_another_commit_is_built_aside_and_a_job_keeps_the_first(
    lab: Lab, hosts: tuple[Host, Host], material: Material, tmp_path: Path
) -> None:
    host = hosts[1]
    before = host.run(f"readlink {STORE}/current").stdout.strip()
    job = "import vllm, time; time.sleep(10**6)"
    host.sudo(f"systemd-run --quiet --unit=vllm-job {STORE}/{before}/bin/python -c '{job}'")
    newer = material.commit({"csrc/second.c": "int answer(void) { return 43; }\n"})
    material.bring(host)
    path = written(lab, (host,), tmp_path / "newer.yaml", newer)
    assert deploy(lab, path).rc == 0
    finished(host)
    assert answer(host) == "43"
    assert host.sudo("systemctl is-active vllm-job").stdout.strip() == "active"
    kept = deploy(lab, path)
    assert f"{STORE}/{before} stays: 1 processes use it" in kept.output
    assert kept.changes(host.name) == {}
    host.sudo("systemctl stop vllm-job")
    assert "remove the old build of vLLM" in str(deploy(lab, path).changes(host.name))
    assert before not in host.run(f"ls {STORE}").stdout


def test_what_is_missing_is_refused_with_its_package(
    lab: Lab, hosts: tuple[Host, Host], material: Material, tmp_path: Path
) -> None:
    host = hosts[1]
    commit = material.commit({"vllm/version.txt": "0.34.0\n"})
    path = written(lab, (host,), tmp_path / "tools.yaml", commit)
    host.sudo("mv /usr/bin/git /usr/bin/git.away")
    try:
        result = deploy(lab, path)
        assert result.rc == 1
        assert "vllm_source: there is no git: apt-get install git" in result.output
        assert "Traceback" not in result.output
    finally:
        host.sudo("mv /usr/bin/git.away /usr/bin/git")


def test_removal_leaves_nothing(lab: Lab, hosts: tuple[Host, Host], tmp_path: Path) -> None:
    absent = {**OTHERS, "vllm_source": {"state": "absent"}}
    path = fleet(lab, hosts, tmp_path / "absent.yaml", defaults=absent)
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    paths = (
        f"{STORE} {STATE} /opt/sparkfleet/lib/vllm_source /usr/local/bin/spark-vllm-python "
        f"/usr/local/bin/spark-vllm-source "
        f"/opt/sparkfleet/bin/spark-vllm-build /etc/sparkfleet/vllm-source.json /etc/systemd/system/{UNIT}"
    )
    for host in hosts:
        assert host.run(f"ls -d {paths} 2>/dev/null", check=False).stdout == ""
        assert host.run("id sparkfleet-build", check=False).rc != 0
        assert host.run("spark-python -c 'import tqdm'", user="alice").rc == 0
    again = deploy(lab, path)
    assert [again.changes(host.name) for host in hosts] == [{}, {}]
