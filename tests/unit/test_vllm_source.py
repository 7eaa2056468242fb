"""The measure as a deploy has it: what it asks for, plans, starts and leaves alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sparkfleet.settings import VllmSourceSettings
from sparkhost.base.files import File
from sparkhost.base.resource import Change, Context, Refused, from_json
from sparkhost.base.shares import settled
from sparkhost.stack import store as stack_store
from sparkhost.stack.resources import StackOld
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import run as vllm_source_run
from sparkhost.vllm_source import shell as vllm_source_shell
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.gone import NoVllmSource
from sparkhost.vllm_source.resources import SLICE_FILE, VllmBuild, VllmOld
from sparkhost.vllm_source.unit import UNIT, UNIT_FILE
from sparkhost.watchdog.work import Place, Preferences, is_preferred
from tasks import vllm_source as measure
from tests.unit.stack_hosts import MACHINE, UV
from tests.unit.vllm_checkout import World, stack_of
from tests.unit.vllm_source_host import GIB, Pid1, wanted
from tests.unit.vllm_source_host import host as host
from tests.unit.vllm_source_host import pid1 as pid1
from tests.unit.vllm_source_host import world as world

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def planned(resource: VllmBuild, *pending: str) -> tuple[list[str], list[str]]:
    """Summaries, and warnings."""
    context = Context([Change(what, "") for what in pending])
    return [change.summary for change in resource.plan(context)], context.warnings


def test_a_build_is_started_without_waiting_and_a_second_deploy_changes_nothing(world: World, pid1: Pid1) -> None:
    commit = world.commit()
    resource = wanted(world, commit)
    hint = "in the background: spark-vllm-source status, journalctl -fu sparkfleet-vllm-source"
    assert planned(resource) == ([f"build vLLM {commit[:12]} {hint}"], [])
    assert pid1.calls == []  # a plan only looks
    resource.apply()
    assert pid1.calls == [f"reset-failed {UNIT}", f"start --no-block {UNIT}"]
    said = f"vLLM {commit[:12]} is being built: spark-vllm-source status, journalctl -fu sparkfleet-vllm-source"
    assert planned(resource) == ([], [said])
    assert vllm_source_store.STORE.is_dir()  # the unit may write to nothing else
    assert world.run(world.build(commit)) == ""  # what the unit does
    pid1.is_in("inactive")
    assert planned(resource) == ([], [])
    assert list(VllmOld().plan(Context())) == []


def test_nothing_is_built_where_the_units_file_was_refused(world: World, pid1: Pid1, host: Path) -> None:
    resource = wanted(world, world.commit())
    (host / "written").unlink()
    assert planned(resource) == ([], [])
    assert len(planned(resource, str(host / "written"))[0]) == 1, "a dry run has not written it"


def test_a_job_that_still_waits_counts_as_building(world: World, pid1: Pid1) -> None:
    resource = wanted(world, world.commit())
    resource.apply()
    (pid1.folder / "unit").write_text("ActiveState=inactive\nJob=1234\n")
    assert planned(resource)[0] == []
    (pid1.folder / "unit").write_text("ActiveState=inactive\nJob=0\n")
    assert len(planned(resource)[0]) == 1


def test_another_commit_stops_the_build_of_the_first(world: World, pid1: Pid1) -> None:
    first, second = world.commit(), world.commit()
    wanted(world, first).apply()
    asked = vllm_source_record.asked_for()
    (summary,), _ = planned(wanted(world, second))
    assert summary.startswith(f"stop the build {asked}, and build vLLM {second[:12]} in the background")
    wanted(world, second).apply()
    assert pid1.calls[-3:] == [f"stop {UNIT}", f"reset-failed {UNIT}", f"start --no-block {UNIT}"]
    assert vllm_source_record.asked_for().startswith(second[:12])


def test_a_build_that_failed_is_gone_on_with_and_the_step_named(world: World, pid1: Pid1) -> None:
    commit = world.commit({"csrc/second.c": "int answer(void) { return 42 }\n"})
    assert world.run(world.build(commit))
    (summary,), _ = planned(wanted(world, commit))
    assert summary.startswith(
        f"go on to build vLLM {commit[:12]} at the step compile (uv: exit status 2: csrc/second.c"
    )


def test_an_edited_build_is_built_anew(world: World, pid1: Pid1) -> None:
    build = world.build(world.commit())
    assert world.run(build) == ""
    root = vllm_source_store.home(build.key)
    next(root.glob("lib/python3*/site-packages/vllm/__init__.py")).write_text("")
    resource = wanted(world, build.request.commit)
    (summary,), _ = planned(resource)
    assert summary.startswith(f"build vLLM {build.request.commit[:12]} anew, since files of {root} were changed")
    assert world.run(build) == ""
    assert planned(resource) == ([], [])


def test_a_dry_run_says_what_the_run_will_do_where_the_basis_comes_with_it(world: World, pid1: Pid1) -> None:
    resource = wanted(world, COMMIT)
    link = str(stack_store.STORE / "current")
    for pending in (link, str(vllm_source_store.CUDA)):
        (summary,), _ = planned(resource, pending)
        assert summary.startswith("build vLLM 0123456789ab on the stack and CUDA environment of this run")
    pid1.caps("infinity")
    (summary,), _ = planned(resource, SLICE_FILE)
    assert summary.startswith("build vLLM 0123456789ab in the background")


def test_without_a_cap_or_with_one_that_leaves_jobs_nothing_it_is_refused(world: World, pid1: Pid1) -> None:
    resource = wanted(world, COMMIT)
    pid1.caps("infinity")
    with pytest.raises(Refused, match=r"training\.slice has no MemoryMax: the measure training_slice must be present"):
        planned(resource)
    pid1.caps(GIB)
    with pytest.raises(Refused, match=r"vllm_source\.memory_max of 1024 MiB is not less than the 1024 MiB of training"):
        planned(resource)


def test_without_a_stack_it_is_refused(host: Path, pid1: Pid1) -> None:
    request = measure.request(VllmSourceSettings(state="present", commit=COMMIT))
    with pytest.raises(Refused, match="there is no stack on this host: the measure stack must be present"):
        planned(VllmBuild(request, UV, GIB))


def test_the_account_can_log_in_nowhere_and_has_no_home_but_the_builds(pid1: Pid1, host: Path) -> None:
    """By the real useradd, into files of the test."""
    (host / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (host / "etc" / name).touch()
    (pid1.folder / "useradd").write_text(f'#!/bin/sh\nexec /usr/sbin/useradd --prefix {host} "$@"\n')
    account = measure.apply(VllmSourceSettings(state="present", commit=COMMIT))[0]
    assert [change.summary for change in account.plan(Context())] == ["create the account that compiles vLLM"]
    account.apply()
    name, _, uid, gid, _, home, shell = (host / "etc" / "passwd").read_text().strip().split(":")
    assert (name, home, shell) == ("sparkfleet-build", "/var/lib/sparkfleet/vllm-source/home", "/usr/sbin/nologin")
    assert 0 < int(uid) < 1000
    assert 0 < int(gid) < 1000
    assert not Path(f"{host}/var/lib/sparkfleet/vllm-source/home").exists()


def test_a_host_that_never_had_it_costs_one_look(host: Path, pid1: Pid1) -> None:
    (pid1.folder / "systemctl").write_text("#!/bin/sh\nexit 1\n")  # nobody is asked
    resources = measure.remove(VllmSourceSettings())
    assert [change for resource in resources for change in resource.plan(Context())] == []


def test_removal_leaves_nothing_once_nobody_uses_a_build(world: World, pid1: Pid1, host: Path) -> None:
    build = world.build(world.commit())
    assert world.run(build) == ""
    (host / "unit-file").touch()
    (host / "passwd").write_text("sparkfleet-build:x:997:997::/nonexistent:/usr/sbin/nologin\n")
    pid1.is_in("activating")
    with subprocess.Popen(
        [vllm_source_store.home(build.key) / "bin" / "python", "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as job:
        assert job.stdout
        assert job.stdout.readline() == b"1\n"
        with pytest.raises(Refused, match=rf"is used by 1 processes \(PID {job.pid}\): end them first"):
            NoVllmSource().apply()
        job.communicate(b"\n")
    NoVllmSource().apply()
    assert pid1.calls == [f"stop {UNIT}", f"reset-failed {UNIT}", "userdel sparkfleet-build"]
    (host / "passwd").write_text("")
    assert list(NoVllmSource().plan(Context())) == []
    assert not (host / "opt/sparkfleet/vllm-source").exists()
    assert not (host / "var/sparkfleet").exists()
    assert stack_store.current() == world.release


def test_the_stack_below_a_build_outlives_its_turn(world: World, host: Path) -> None:
    build = world.build(world.commit())
    assert world.run(build) == ""
    newer = stack_of(host / "newer", version="2.14.0")
    old = StackOld("lab", {MACHINE: newer}, keep=1)
    assert list(old.plan(Context())) == []
    vllm_source_store.home(build.key).rename(host / "gone")
    assert [Path(change.what).name for change in old.plan(Context())] == [world.release]


def test_the_unit_reads_what_the_deploy_has_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = VllmSourceSettings(state="present", commit=COMMIT, variables={"VLLM_CUTLASS_SRC_DIR": "/srv/cutlass"})
    files = {
        one.path: settled(one.content, lambda: 120 * GIB) for one in measure.apply(settings) if isinstance(one, File)
    }
    monkeypatch.setattr(vllm_source_run, "CONFIG", tmp_path / "config")
    vllm_source_run.CONFIG.write_text(files[measure.CONFIG])
    request = vllm_source_run.read_request()
    assert vars(request) == settled(measure.request(settings), lambda: 120 * GIB)
    assert (request.memory_per_job, request.variables["VLLM_CUTLASS_SRC_DIR"]) == (8 * GIB, "/srv/cutlass")
    unit = files[UNIT_FILE]
    assert f"ExecStart={measure.BUILDER}\n" in unit
    assert f"MemoryMax={80 * GIB}\n" in unit
    assert "TimeoutStartSec=14400\n" in unit
    for resource in measure.apply(settings):
        assert from_json(json.loads(json.dumps(resource.to_json()))) == resource


def test_the_watchdog_ends_a_build_before_jobs_and_nobody_can_hide_behind_the_name() -> None:
    assert is_preferred(Place("job", f"/training.slice/{UNIT}", UNIT), Preferences())
    assert not is_preferred(Place("session", f"/user.slice/user-1000.slice/{UNIT}", UNIT), Preferences())
    assert not is_preferred(Place("job", "/training.slice/spark-job-1.service", "spark-job-1.service"), Preferences())


def test_what_is_asked_for_must_be_what_the_host_still_is(world: World) -> None:
    request = world.request(world.commit())
    vllm_source_record.ask_for("another-0123")
    with pytest.raises(vllm_source_shell.StepFailed, match="the host has changed since the build another-0123 was"):
        vllm_source_run.wanted(request, UV)
    vllm_source_record.ask_for(vllm_source_store.key_of(request, world.release))
    assert vllm_source_run.wanted(request, UV).release == world.release


def test_variables_and_cuda_decide_the_build(world: World) -> None:
    commit = world.commit()
    keys = {world.build(commit).key}
    keys.add(vllm_source_store.key_of(world.request(commit, {"A": "b"}), world.release))
    vllm_source_store.CUDA.write_text('TORCH_CUDA_ARCH_LIST="12.1a"\nOMP_NUM_THREADS=4\n')
    keys.add(world.build(commit).key)
    vllm_source_store.CUDA.write_text('TORCH_CUDA_ARCH_LIST="12.1a"\nOMP_NUM_THREADS=8\n')
    keys.add(world.build(commit).key)
    assert len(keys) == 3
    assert world.build(commit).environment()["TORCH_CUDA_ARCH_LIST"] == "12.1a"
