"""Fleet files: defaults, groups and hosts are joined into one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparkfleet.settings import HostSettings, Size, load_fleet
from sparkfleet.settings.measures import UV_SHA256
from tests.unit.fleet_files import Load, refused

A, B = "a" * 64, "b" * 64


def test_a_host_needs_nothing_but_a_name(load: Load) -> None:
    fleet = load("hosts:\n  spark1:\n")
    host = fleet.hosts[0]
    assert (host.name, host.address, host.port, host.user, host.ssh_key, host.groups) == (
        "spark1",
        None,
        None,
        None,
        None,
        (),
    )
    assert host.settings == HostSettings()
    assert fleet.known_hosts == Path("~/.ssh/known_hosts").expanduser().resolve()


def test_files_are_relative_to_the_fleet_file(
    load: Load, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("known_hosts: keys/known\nhosts: {a: {ssh_key: ../key}, b: {ssh_key: /etc/key}, c: {ssh_key: ~/key}}")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setenv("HOME", "/home/somebody")
    fleet = load_fleet(tmp_path / "x.yaml")
    assert fleet.known_hosts == tmp_path / "keys" / "known"
    assert [h.ssh_key for h in fleet.hosts] == [tmp_path.parent / "key", Path("/etc/key"), Path("/home/somebody/key")]


def test_a_host_overrides_its_groups_in_order_and_they_the_defaults(load: Load) -> None:
    fleet = load("""\
defaults:
  swap: {margin: 1MiB, mode: keep}
  cuda_env: {home: /d, variables: {A: d, B: d, C: d, D: d}}
groups:
  one: {swap: {margin: 2MiB}, cuda_env: {home: /one, variables: {B: one, C: one, D: one}}}
  two: {swap: , cuda_env: {home: /two, variables: {C: two, D: two}}}
hosts:
  a: {groups: [one, two], settings: {swap: {margin: 3MiB}, cuda_env: {variables: {D: host}}}}
  b: {groups: [two, one]}
  c: {settings: }
""")
    a, b, c = (host.settings for host in fleet.hosts)
    assert [s.swap.margin for s in (a, b, c)] == [Size(n * 2**20) for n in (3, 2, 1)]
    assert [s.cuda_env.home for s in (a, b, c)] == ["/two", "/one", "/d"]
    assert a.cuda_env.variables == {"A": "d", "B": "one", "C": "two", "D": "host"}
    assert b.cuda_env.variables == {"A": "d", "B": "one", "C": "one", "D": "one"}
    assert {s.swap.mode for s in (a, b, c)} == {"keep"}
    assert [host.groups for host in fleet.hosts] == [("one", "two"), ("two", "one"), ()]
    assert fleet.groups == ("one", "two")


def test_nested_mappings_are_joined_and_lists_replaced(load: Load) -> None:
    fleet = load("""\
defaults: {uv: {config: {pip: {a: 1, b: [1, 2]}, x: {y: 1}}}}
hosts: {h: {settings: {uv: {config: {pip: {b: [3], c: true}, x: 5}}}}}
""")
    assert fleet.hosts[0].settings.uv.config == {"pip": {"a": 1, "b": [3], "c": True}, "x": 5}


def test_another_version_of_uv_does_not_take_the_hashes_of_a_lower_level(load: Load) -> None:
    text = f"""\
defaults: {{uv: {{version: 1.0.0, sha256: {{aarch64: {A}, x86_64: {A}}}}}}}
hosts:
  same: {{settings: {{uv: {{version: 1.0.0}}}}}}
  back: {{settings: {{uv: {{version: 0.13.9}}}}}}
  next: {{settings: {{uv: {{version: 1.1.0, sha256: {{aarch64: {B}}}}}}}}}
"""
    fleet = load(text)
    assert [host.settings.uv.sha256 for host in fleet.hosts] == [{"aarch64": A, "x86_64": A}, UV_SHA256, {"aarch64": B}]
    [line] = refused(load, text.replace(f", sha256: {{aarch64: {B}}}", ""))
    assert line.startswith("x.yaml:5: hosts.next.settings.uv.version: got '1.1.0' with the aarch64 hash of 0.13.9")


def test_settings_survive_the_way_through_json(load: Load) -> None:
    fleet = load(f"""\
defaults:
  swap: {{margin: 3MiB}}
  cuda_env: {{variables: {{A: b}}, ptxas: /x}}
  uv: {{version: 1.0.0, sha256: {{aarch64: {A}}}, config: {{a: [1, x, true, 0.5]}}}}
hosts: {{h: }}
""")
    for settings in (fleet.hosts[0].settings, HostSettings()):
        assert HostSettings.model_validate(json.loads(json.dumps(settings.model_dump(mode="json")))) == settings
