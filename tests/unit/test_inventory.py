"""inventory.py under the real pyinfra: the hosts it gets, and what a bad fleet file does to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.deploying import LAB_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PYINFRA = Path(sys.executable).with_name("pyinfra")


def test_the_labs_settings_are_those_of_the_tests() -> None:
    lab = yaml.safe_load((ROOT / "inventories" / "lab.yaml").read_text())
    assert lab["defaults"] == LAB_SETTINGS


def pyinfra(*arguments: str, fleet: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "FLEET"}
    if fleet:
        environment["FLEET"] = str(fleet)
    command = [str(PYINFRA), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def hosts(fleet: Path | None = None) -> dict[str, Any]:
    result = pyinfra("--json", "inventory.py", "debug-inventory", fleet=fleet)
    assert result.returncode == 0, result.stderr
    return {host["name"]: host for host in json.loads(result.stdout)}


def test_the_lab_is_the_default() -> None:
    lab = hosts()
    assert list(lab) == ["spark1", "spark2"]
    data = lab["spark2"]["data"]
    settings = data.pop("settings")
    assert data == {
        "ssh_hostname": "127.0.0.1",
        "ssh_port": 2202,
        "ssh_user": "admin",
        "ssh_key": str(ROOT / ".lab" / "admin_key"),
        "ssh_known_hosts_file": str(ROOT / ".lab" / "known_hosts"),
        "ssh_strict_host_key_checking": "yes",
    }
    assert settings["swap"] == {"state": "present", "mode": "off", "margin": "128MiB"}


def test_only_what_is_set_reaches_pyinfra_and_groups_are_groups(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("groups: {train: , spare: }\nhosts: {a: , b: {groups: [train]}}\n")
    both = hosts(fleet)
    ssh = {key for key in both["a"]["data"] if key.startswith("ssh_")}
    assert ssh == {"ssh_known_hosts_file", "ssh_strict_host_key_checking"}
    assert {name: sorted(host["groups"]) for name, host in both.items()} == {
        "a": ["inventory"],
        "b": ["inventory", "train"],
    }


BAD = "hosts:\n  a: {port: 0}\n  b: {settings: {swap: {mode: false}}}\n"


@pytest.mark.parametrize("arguments", [["debug-inventory"], ["exec", "--", "true"], ["deploy.py"]])
@pytest.mark.parametrize("options", [[], ["--limit", "a"], ["-y", "--dry"]])
def test_a_bad_fleet_file_ends_pyinfra_with_its_lines_and_code_4(
    tmp_path: Path, options: list[str], arguments: list[str]
) -> None:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(BAD)
    result = pyinfra(*options, "inventory.py", *arguments, fleet=fleet)
    assert result.returncode == 4
    assert [line for line in result.stderr.splitlines() if line and not line.startswith("-->")] == [
        f"{fleet}:2: hosts.a.port: got 0, expected a port from 1 to 65535",
        f"{fleet}:3: hosts.b.settings.swap.mode: got false, expected off or keep",
    ]
    assert "Traceback" not in result.stdout + result.stderr


def test_a_missing_fleet_file_ends_pyinfra_with_code_4(tmp_path: Path) -> None:
    result = pyinfra("inventory.py", "debug-inventory", fleet=tmp_path / "none.yaml")
    assert result.returncode == 4
    assert result.stderr.splitlines()[-1] == f"{tmp_path}/none.yaml: there is no such file"


def test_limit_takes_a_host_or_a_group(tmp_path: Path) -> None:
    """Nothing listens on port 1: the host that pyinfra tries is the one that it chose."""
    fleet = tmp_path / "fleet.yaml"
    text = "groups: {train: }\nhosts: {%s}\n"
    host = "{address: 127.0.0.%d, port: 1, user: nobody%s}"
    fleet.write_text(text % f"one: {host % (2, '')}, two: {host % (3, ', groups: [train]')}")
    for limit, chosen, other in (("one", "one", "two"), ("train", "two", "one")):
        result = pyinfra("-y", "--limit", limit, "inventory.py", "exec", "--", "true", fleet=fleet)
        assert result.returncode == 1
        assert f"[{chosen}]" in result.stdout + result.stderr
        assert f"[{other}]" not in result.stdout + result.stderr


def test_only_hosts_that_are_named_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("hosts:\n  spark1: {}\n  spark10: {settings: {uv: {state: unmanaged}}}\n")
    monkeypatch.setenv("SPARKFLEET_REMOVE", "spark10 other")
    states = {
        name: {measure["state"] for measure in host["data"]["settings"].values()} for name, host in hosts(path).items()
    }
    # vllm_source is off by default, cluster_link left alone.
    assert states == {"spark1": {"present", "absent", "unmanaged"}, "spark10": {"absent"}}
