"""How daemon.json is merged, and where Docker is left alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sparkhost.base.resource import Failed, Refused
from sparkhost.training_slice import docker


def test_foreign_keys_of_docker_stay() -> None:
    old = '{"runtimes": {"nvidia": {"path": "x"}}, "live-restore": false}'
    new = json.loads(docker.merged(old, cgroup_parent="training.slice", live_restore=True))
    assert new == {"runtimes": {"nvidia": {"path": "x"}}, "live-restore": True, "cgroup-parent": "training.slice"}
    assert json.loads(docker.merged(json.dumps(new), cgroup_parent=None, live_restore=False)) == json.loads(old)
    assert docker.merged("", cgroup_parent=None) == ""
    assert docker.merged('{"cgroup-parent":"training.slice"}', cgroup_parent=None) == ""
    assert docker.merged(' {"a": 1}\n', cgroup_parent=None) == ' {"a": 1}\n'
    for bad in ("{", "[]", "3"):
        with pytest.raises(Refused, match=r"daemon\.json is no"):
            docker.merged(bad, live_restore=True)


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        (({}, "", "training.slice", "inactive"), None),
        (({"cgroup-parent": "training.slice"}, "", "training.slice", ""), None),
        (({}, "", "training.slice", "active"), "swarm mode"),
        (({"cgroup-parent": "x.slice"}, "", "training.slice", ""), "somebody's wish"),
        (({"exec-opts": ["native.cgroupdriver=cgroupfs"]}, "", "training.slice", ""), "cgroupfs"),
        (({}, "dockerd --live-restore", "training.slice", ""), "gives dockerd --live-restore"),
    ],
)
def test_docker_is_left_alone_where_it_would_break(
    given_: tuple[dict[str, object], str, str, str], reason: str | None
) -> None:
    found = docker.objection(*given_)
    assert (found is None) is (reason is None)
    assert reason is None or reason in (found or "")


@pytest.mark.parametrize("text", ["", "\n", " \t\r\n"])
def test_a_blank_file_says_nothing(text: str) -> None:
    """As for dockerd, which trims it."""
    assert docker.parsed(text) == {}
    assert json.loads(docker.merged(text, live_restore=True)) == {"live-restore": True}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("null", "is no mapping but 'null'"),
        ('// a comment\n{"debug": true}', "is not JSON that can be edited"),
        ('{"debug": true,}', "is not JSON that can be edited"),
        ('{"log-opts": {"max-size": "1m"}, "log-opts": {"max-file": "3"}}', "the key 'log-opts' is there twice"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' is there twice"),
        ('{"a": 1e400}', "the number 1e400 is too large"),
        ('{"a": -1e999}', "the number -1e999 is too large"),
        ('{"a": Infinity}', "Infinity is no JSON"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("1" * 5000, "is not JSON that can be edited"),
        ('{"exec-opts": null}', "exec-opts: got null, expected a list of texts"),
        ('{"exec-opts": [1]}', "exec-opts: got [1], expected a list of texts"),
        ('{"cgroup-parent": 7}', "cgroup-parent: got 7, expected a text"),
        ('{"live-restore": "yes"}', 'live-restore: got "yes", expected true or false'),
        ("\ufeff{}", "is not JSON that can be edited"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_one_line(text: str, words: str) -> None:
    """It names the file, the key where there is one, and the remedy; nothing of it is lost without a word."""
    with pytest.raises(Refused) as refused:
        docker.merged(text, live_restore=True)
    line = str(refused.value)
    assert line.startswith("/etc/docker/daemon.json")
    assert words in line
    assert line.endswith("mend it, or set training_slice.docker to keep")
    assert len(line) < 300


@pytest.fixture
def dockerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """daemon.json of a host whose dockerd is a double: it notes who may read what it is given to check."""
    program = tmp_path / "bin" / "dockerd"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --help ] && {{ echo --validate; exit; }}\n'
        f'stat -c %a "$3" >{tmp_path}/modes\ngrep -q bad "$3" && {{ echo no good >&2; exit 1; }}; exit 0\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(docker, "DAEMON_JSON", tmp_path / "docker" / "daemon.json")
    return tmp_path / "docker" / "daemon.json"


@pytest.mark.skipif(os.getuid() != 0, reason="gives files away")
def test_mode_owner_and_group_stay_and_the_trial_is_for_root_alone(dockerd: Path, tmp_path: Path) -> None:
    docker.write("{}\n")
    assert stat.S_IMODE(dockerd.stat().st_mode) == 0o644
    os.chown(dockerd, 0, 999)
    dockerd.chmod(0o640)
    docker.write('{"debug": true}\n')
    status = dockerd.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 0, 999)
    assert (tmp_path / "modes").read_text() == "600\n"
    assert [path.name for path in dockerd.parent.iterdir()] == ["daemon.json"]


def test_what_dockerd_refuses_changes_nothing(dockerd: Path) -> None:
    docker.write("{}\n")
    with pytest.raises(Failed, match="no good"):
        docker.write('{"bad": 1}\n')
    assert dockerd.read_text() == "{}\n"
    assert [path.name for path in dockerd.parent.iterdir()] == ["daemon.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"cgroup-parent": 1, "live-restore": null}', "[" * 100_000])
def test_a_damaged_record_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(docker, "RECORD", tmp_path / "docker-before.json")
    docker.RECORD.write_text(text)
    with pytest.raises(Failed, match=r"docker-before\.json is damaged: .* remove it"):
        docker.read_record()
