"""What a step's sampler sees: real processes, a cgroup tree in a directory, and the GPU sampler's own file."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkhost.base.units import MIB
from sparkhost.launcher import jobs
from sparkhost.launcher.jobs import Job
from sparkhost.sampler.main import write
from sparkhost.tools.profile import step
from sparkhost.tools.profile.sample import Memory, Sampler, family, held

HOLD = "import sys; held = bytearray(b'x' * {size}); print('ready', flush=True); sys.stdin.read()"
# A child that holds something itself, as a data loader does.
PARENT = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"


@contextlib.contextmanager
def holding(code: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.communicate(timeout=30)  # end of its input ends it, and its child


@pytest.fixture
def memory() -> Iterator[Memory]:
    opened = Memory()
    yield opened
    opened.close()


def test_a_childs_memory_counts(memory: Memory) -> None:
    with holding(PARENT.format(child=HOLD.format(size=64 * MIB))) as pid:
        assert len(family(pid)) == 2
        sampler = Sampler(pid, memory, gpu="/nonexistent")
        sampler.look()
        assert 64 * MIB <= sampler.peaks().processes <= 128 * MIB
        assert sampler.peaks().gpu is None
        assert held([pid]) < 64 * MIB


def test_gpu_memory_of_the_step_counts_and_that_of_others_does_not(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "sample.json"
    with holding(HOLD.format(size=MIB)) as pid:
        processes = {pid: 5 * MIB * 1024, os.getppid(): MIB}
        write(path, [{"name": "GB10", "unified": True, "processes": processes}], None)
        sampler = Sampler(pid, memory, gpu=str(path))
        sampler.look()
        peaks = sampler.peaks()
    assert peaks.gpu == 5 * MIB * 1024
    assert peaks.processes > peaks.gpu


def test_figures_of_a_gpu_sampler_that_has_stopped_are_not_used(memory: Memory, tmp_path: Path) -> None:
    path = tmp_path / "sample.json"
    write(path, [{"name": "GB10", "unified": True, "processes": {os.getpid(): MIB}}], None)
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "boottime": value["boottime"] - 60}))
    sampler = Sampler(os.getpid(), memory, gpu=str(path))
    sampler.look()
    assert sampler.peaks().gpu is None


def test_a_job_is_followed_by_its_cgroup(memory: Memory, tmp_path: Path) -> None:
    """The cgroup is known a little after the start, and its peak goes away with it."""
    found: list[str] = []
    with holding(HOLD.format(size=32 * MIB)) as pid:
        unit = tmp_path / "training.slice" / "spark-job-1-0123abcd.service"
        unit.mkdir(parents=True)
        (unit / "cgroup.procs").write_text(f"{pid}\n")
        (unit / "memory.peak").write_text(f"{40 * MIB}\n")
        sampler = Sampler(
            os.getpid(), memory, lambda: found[0] if found else None, cgroups=tmp_path, gpu="/nonexistent"
        )
        sampler.look()
        assert sampler.peaks().cgroup is None
        found.append("/training.slice/spark-job-1-0123abcd.service")
        sampler.processes = 0
        sampler.look()
        (unit / "memory.peak").unlink()
        sampler.look()
        assert sampler.peaks().cgroup == 40 * MIB
        assert 32 * MIB <= sampler.peaks().processes <= 64 * MIB


def test_the_cgroup_of_a_job_is_found_by_the_launchers_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(jobs, "CGROUPS", tmp_path / "cgroups")
    monkeypatch.setattr(step, "LOOK_FOR_JOB_EVERY", 0.0)
    find = step.finder("profile-batch-1-7")
    assert find() is None
    job = Job("0123abcd", "profile-batch-1-7", ["x"], "/", time.time(), MIB, None, False)
    jobs.record(job)
    assert find() is None  # it does not run yet
    jobs.cgroup(job).mkdir(parents=True)
    assert find() == f"/training.slice/spark-job-{os.getuid()}-0123abcd.service"
