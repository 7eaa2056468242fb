"""The looks and judges of vLLM from source: on a build that was made here, whole and broken, and on other words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkfleet.audit.controls import vllm_source_judges as judges
from sparkfleet.audit.model import Evidence, Judge, NoEvidence, Observation, Status
from sparkfleet.audit.probe import as_root_vllm_source, as_user
from sparkfleet.settings import HostSettings
from sparkhost.base.resource import UPLOADS
from sparkhost.stack import store as stack_store
from sparkhost.vllm_source import check as vllm_source_check
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.steps import Build
from tests.unit.vllm_checkout import headers, world_in

FILES = Path(__file__).resolve().parents[2] / "files" / "vllm_source"


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """A build in use, and `spark-vllm-python` on PATH, which looks where the build is."""
    store = tmp_path / "vllm-source"
    monkeypatch.setattr(stack_store, "STORE", tmp_path / "stacks")
    monkeypatch.setattr(vllm_source_store, "STORE", store)
    monkeypatch.setattr(vllm_source_store, "CUDA", tmp_path / "cuda.env")
    monkeypatch.setattr(vllm_source_record, "STATE", tmp_path / "state")
    monkeypatch.setattr(as_root_vllm_source, "BUILDS", store)
    monkeypatch.setattr(vllm_source_check, "INCLUDES", headers(tmp_path))
    world = world_in(tmp_path)
    made = world.build(world.commit())
    assert world.run(made) == ""
    program = tmp_path / "bin" / "spark-vllm-python"
    program.parent.mkdir()
    program.write_text((FILES / "spark-vllm-python").read_text().replace("/opt/sparkfleet/vllm-source", str(store)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    # The file system's clock has ticks of some milliseconds: what is broken within one would look like the build's own.
    mark, probe = (store / made.key / "sparkfleet.json").lstat().st_ctime_ns, tmp_path / "tick"
    while not probe.exists() or probe.lstat().st_ctime_ns <= mark:
        probe.write_text("")
    yield made
    UPLOADS.clear()


def settings(build: Build) -> HostSettings:
    return HostSettings.model_validate({"vllm_source": {"state": "present", "commit": build.request.commit}})


def seen() -> Evidence:
    """What the probe sees now; its own words for `current` are those of a real host."""
    found = {**as_root_vllm_source.files({}), **as_user.spark_vllm_python({})}
    real, here = "/opt/sparkfleet/vllm-source/current", (as_root_vllm_source.BUILDS / "current").resolve()
    return Evidence(
        {
            name: Observation(*answer._replace(output=answer.output.replace(real, str(here))))
            for name, answer in found.items()
        }
    )


def test_a_build_as_it_was_installed_passes(build: Build) -> None:
    evidence = seen()
    for judge in (judges.of_the_commit, judges.unchanged):
        found = judge(evidence, settings(build))
        assert found.status is Status.PASS, found


@pytest.mark.parametrize(
    ("damage", "judge", "saw"),
    [
        ("echo x >> $(echo lib/python3*/site-packages/vllm/__init__.py)", judges.unchanged, "changed lib/python3"),
        ("echo > $(echo lib/python3*/site-packages)/zz.pth", judges.unchanged, "added lib/python3"),
        ("rm lib/python3*/site-packages/vllm/version.txt", judges.unchanged, "missing lib/python3"),
        ("rm sparkfleet.json", judges.unchanged, "the release was never found whole"),
        ("rm -r lib/python3*/site-packages/vllm", judges.of_the_commit, "vllm from "),
        ("chmod o+w lib/python3*/site-packages/vllm", judges.only_root_writes, "0 0757 lib/python3"),
    ],
)
def test_what_was_broken_fails_by_name(build: Build, damage: str, judge: Judge, saw: str) -> None:
    subprocess.run(damage, shell=True, check=True, cwd=vllm_source_store.home(build.key))
    found = judge(seen(), settings(build))
    assert found.status is Status.FAIL
    assert saw in found.saw


def test_another_commit_or_none_fails(build: Build) -> None:
    other = HostSettings.model_validate({"vllm_source": {"state": "present", "commit": "0" * 40}})
    assert judges.of_the_commit(seen(), other).status is Status.FAIL
    (vllm_source_store.STORE / "current").unlink()
    evidence = seen()
    for judge in (judges.unchanged, judges.only_root_writes):
        found = judge(evidence, settings(build))
        assert (found.status, found.saw) == (Status.FAIL, "no build is in use")
    found = judges.of_the_commit(evidence, settings(build))
    assert (found.status, found.saw.partition(":")[0]) == (Status.FAIL, "spark-vllm-python")


UNIT = "Id=sparkfleet-vllm-source.service\nLoadState={}\nActiveState={}\nResult={}\n"


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (UNIT.format("loaded", "inactive", "success"), Status.PASS),
        (UNIT.format("loaded", "activating", "success"), Status.PASS),
        (UNIT.format("loaded", "failed", "exit-code"), Status.FAIL),
        (UNIT.format("loaded", "failed", "timeout"), Status.FAIL),
        (UNIT.format("not-found", "inactive", "success"), Status.FAIL),
    ],
)
def test_the_last_build_is_asked_of_pid_1(output: str, status: Status) -> None:
    evidence = Evidence({"vllm_source_unit": Observation("systemctl show", output)})
    assert judges.not_failed(evidence, HostSettings()).status is status


@pytest.mark.parametrize("judge", [judges.of_the_commit, judges.unchanged, judges.only_root_writes, judges.not_failed])
@pytest.mark.parametrize("output", ["", " \n", "Segmentation fault\n", "3 paths\nx\n", "/a\n/b\n/c\nd\n", "Id=x\n"])
def test_no_judge_passes_on_other_words(judge: Judge, output: str) -> None:
    names = ("spark_vllm_python", "vllm_source_changed", "vllm_source_owner", "vllm_source_unit")
    evidence = Evidence({name: Observation(name, output) for name in names})
    try:
        found = judge(evidence, HostSettings())
    except NoEvidence:
        return
    assert found.status is Status.FAIL
