"""What `spark-vllm-source` says of a build, and how it ends."""

from __future__ import annotations

import json

import pytest

from sparkhost.vllm_source import cli as vllm_source_cli
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import run as vllm_source_run
from tests.unit.vllm_checkout import World, record_of
from tests.unit.vllm_source_host import Pid1, wanted
from tests.unit.vllm_source_host import host as host
from tests.unit.vllm_source_host import pid1 as pid1
from tests.unit.vllm_source_host import world as world


def test_status_shows_each_step_and_json_has_the_same(
    world: World, pid1: Pid1, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vllm_source_cli.main(["status"]) == 1
    assert capsys.readouterr().out == "in use: none\nno build was asked for, or it has not begun\n"
    commit = world.commit()
    wanted(world, commit).apply()
    build = world.build(commit)
    assert world.run(build) == ""
    capsys.readouterr()
    assert vllm_source_cli.main([]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"in use: {build.key}, on the stack {world.release}"
    assert shown[3].split() == ["step", "state", "started", "(UTC)", "seconds", "exit"]
    assert [line.split()[:2] for line in shown[4:]] == [[name, "done"] for name in vllm_source_run.NAMES]
    assert vllm_source_cli.main(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["in_use"] == {"build": build.key, "commit": commit, "stack": world.release}
    assert [step["name"] for step in told["asked_for"]["steps"]] == list(vllm_source_run.NAMES)
    assert vllm_source_cli.main(["verify"]) == 0
    assert vllm_source_cli.main(["path"]) == 0
    assert vllm_source_cli.main(["verify", "nothing"]) == 1


def test_a_failed_step_is_in_the_status_and_its_exit_code(
    world: World, pid1: Pid1, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run(world.build(world.commit())) == ""
    commit = world.commit({"requirements/common.txt": "gamma\n"})
    wanted(world, commit).apply()
    build = world.build(commit)
    assert world.run(build)
    capsys.readouterr()
    assert vllm_source_cli.main([]) == 1
    shown = capsys.readouterr().out.splitlines()
    row = next(line for line in shown if line.startswith("dependencies"))
    assert row.split()[1] == "failed"
    assert shown[-1] == f"log: {vllm_source_record.log_of(build.key)}"
    assert record_of(build).stopped
