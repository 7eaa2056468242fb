"""`sparkfleet settings`: the level and line of each value, and shares as sizes where the memory is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.cli import main
from tests.doubles import sshd

FLEET = """\
known_hosts: known_hosts
defaults:
  swap: {margin: 2GiB}
  cuda_env:
    variables:
      A: "1"
      B: "1"
  uv: {version: 0.13.8, sha256: {x86_64: "%s"}}
groups:
  lab:
    cuda_env: {variables: {B: "2"}}
    uv: {version: 0.13.9}
hosts:
  spark1:
    groups: [lab]
    settings:
      ssh: {protect: {slurmd.service: 64MiB}}
  spark2: {}
""" % ("0" * 64)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    assert main(["settings", *words, "--json"]) == 0
    return {one["key"]: one for one in json.loads(capsys.readouterr().out)}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lab.yaml"
    path.write_text(FLEET)
    return path


def test_each_value_names_the_level_and_line_that_set_it(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, "spark1", "--fleet", str(fleet), "--memory", "120GiB")
    origins = {key: one["origin"] for key, one in found.items()}
    assert origins["swap.margin"] == "lab.yaml:3 (defaults)"
    assert origins["swap.mode"] == "default"
    assert origins["cuda_env.variables.A"] == "lab.yaml:6 (defaults)"
    assert origins["cuda_env.variables.B"] == "lab.yaml:11 (groups.lab)"
    assert found["cuda_env.variables.B"]["value"] == "2"
    assert origins['ssh.protect."slurmd.service"'.replace('"', "'")] == "lab.yaml:17 (hosts.spark1)"


def test_what_a_nearer_level_has_made_void_comes_from_nobody(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another uv.version makes the hashes of the level below void: those in force are the default's."""
    found = shown(capsys, "spark1", "--fleet", str(fleet), "--memory", "120GiB")
    assert found["uv.version"]["origin"] == "lab.yaml:12 (groups.lab)"
    assert found["uv.sha256.x86_64"]["origin"] == "default"
    below = shown(capsys, "spark2", "--fleet", str(fleet), "--memory", "120GiB")
    assert below["uv.sha256.x86_64"]["origin"] == "lab.yaml:8 (defaults)"


def test_a_share_has_its_rule_and_with_the_memory_its_size(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = shown(capsys, "spark1", "--fleet", str(fleet), "--memory", "60GiB")["watchdog.term_below"]
    assert (one["value"], one["rule"], one["resolved"]) == ("auto", "2/15 of the host's memory", "8GiB")


def test_the_host_says_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sshd.serving(sshd.says("MemTotal:       125829120 kB\n")) as port:
        path = sshd.fleet_of(tmp_path, {"one": port})
        one = shown(capsys, "one", "--fleet", str(path))["watchdog.term_below"]
    assert one["resolved"] == "16GiB"


def test_a_host_that_is_not_there_costs_the_sizes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sshd.serving(sshd.clean) as port:
        path = sshd.fleet_of(tmp_path, {"one": port})
    assert main(["settings", "one", "--fleet", str(path), "--only", "watchdog"]) == 0
    found = capsys.readouterr()
    assert "(2/15 of the host's memory)" in found.out
    assert "Connection refused" in found.err
    assert "swap." not in found.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sparc1"], "has no host 'sparc1': did you mean spark1?"),
        (["spark1", "--only", "swop"], "--only 'swop' is no measure of sparkfleet: did you mean swap?"),
        (["spark1", "--memory", "120GB"], "expected a size such as 120GiB"),
    ],
)
def test_a_mistake_is_one_line(fleet: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(["settings", *words, "--fleet", str(fleet)]) == 4
    found = capsys.readouterr().err
    assert says in found
    assert found.count("\n") == 1
