"""How daemon.json is merged, and where Docker is left alone."""

from __future__ import annotations

import json

import pytest

from sparkhost import docker
from sparkhost.resource import Refused


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
