"""What programs in a job are told of its promise: as a table, and never a word that they would refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkhost.base import gpu_sample
from sparkhost.base.units import GIB, MIB
from sparkhost.launcher import cli, job_stack, promise
from sparkhost.launcher.holders import meminfo
from sparkhost.launcher.job_stack import Release, releases
from sparkhost.launcher.promise import Host, fraction, variables

SPARK = Host(total=120 * GIB, unified=True, cores=20)
DISCRETE = SPARK._replace(unified=False)
BOTH = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
JAX, NEW_JAX = "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"
TORCH: dict[str, Release] = {"torch": (2, 13)}


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        ({}, None),
        ({"torch": (2, 9)}, None),
        ({"torch": (1, 13)}, None),
        ({"torch": (2, 10)}, "expandable_segments:True,per_process_memory_fraction:0.5000"),
        ({"torch": (3, 0)}, "expandable_segments:True,per_process_memory_fraction:0.5000"),
        ({"torch": (2, 13), "vllm": (0, 32)}, "expandable_segments:True,per_process_memory_fraction:0.5000"),
        ({"torch": (2, 10), "vllm": (0, 19)}, "per_process_memory_fraction:0.5000"),
        ({"torch": (2, 13), "torch_memory_saver": (0, 1)}, "per_process_memory_fraction:0.5000"),
    ],
)
def test_pytorch_is_told_where_its_release_knows_the_word(installed: dict[str, Release], words: str | None) -> None:
    found, notes = variables(60 * GIB, SPARK, installed, {})
    assert [found.get(name) for name in BOTH] == [words, words]
    assert notes == []


@pytest.mark.parametrize("name", BOTH)
def test_what_the_user_has_set_stays_and_is_said(name: str) -> None:
    found, (note,) = variables(60 * GIB, SPARK, TORCH, {name: "max_split_size_mb:512"})
    assert set(found) & set(BOTH) == set()
    assert note.startswith(f"{name} is yours")
    assert "per_process_memory_fraction:0.5000" in note
    assert variables(60 * GIB, SPARK, TORCH, {name: "per_process_memory_fraction:0.9"})[1] == []


def test_other_variables_of_the_user_stay_too() -> None:
    given_ = {JAX: "0.1", "MAX_JOBS": "3"}
    assert set(variables(60 * GIB, SPARK, {}, given_)[0]) == set()
    assert JAX not in variables(60 * GIB, SPARK, {}, {NEW_JAX: "0.1"})[0]  # JAX raises where both are set


def test_jax_takes_all_at_once_and_so_leaves_room_for_the_rest_of_the_job() -> None:
    assert variables(60 * GIB, SPARK, {}, {})[0][JAX] == "0.4666"  # 56 GiB
    assert variables(8 * GIB, SPARK, {}, {})[0][JAX] == "0.0583"  # 7 GiB


@pytest.mark.parametrize(
    ("size", "jobs"), [(64 * MIB, 1), (8 * GIB, 1), (16 * GIB, 2), (60 * GIB, 7), (100 * GIB, 12), (999 * GIB, 20)]
)
def test_one_compiler_for_every_8_gib(size: int, jobs: int) -> None:
    assert variables(size, SPARK, {}, {})[0]["MAX_JOBS"] == str(jobs)


def test_a_gpu_with_own_memory_has_nothing_to_do_with_the_promise() -> None:
    assert variables(60 * GIB, DISCRETE, TORCH, {}) == ({"MAX_JOBS": "7"}, [])


@given(part=st.integers(0, 2**50), total=st.integers(0, 2**50))
def test_a_fraction_is_never_more_than_its_share(part: int, total: int) -> None:
    share = fraction(part, total)
    if share is None:
        assert total == 0 or part >= total or part * 10_000 < total
    else:
        assert 0 < float(share) * total <= part


def environment(path: Path, *distributions: str, cuda: bool = True) -> Path:
    """A virtual environment, as uv and venv make them: its python is a link to the system's."""
    (path / "bin").mkdir(parents=True)
    (path / "pyvenv.cfg").touch()
    (path / "bin" / "python").symlink_to("/usr/bin/python3")
    site = path / "lib" / "python3.12" / "site-packages"
    for name in distributions:
        (site / f"{name}.dist-info").mkdir(parents=True)
    if cuda:
        (site / "torch" / "lib").mkdir(parents=True, exist_ok=True)
        (site / "torch" / "lib" / "libtorch_cuda.so").touch()
    return path


def script(path: Path, first: str) -> Path:
    path.write_text(f"{first}\n")
    path.chmod(0o755)
    return path


def test_releases_are_those_of_the_environment_that_the_command_runs_in(tmp_path: Path) -> None:
    venv = environment(tmp_path / ".venv", "torch-2.13.0+cu130", "vllm-0.32.0", "x-nonsense", "torch-x")
    (tmp_path / "pyproject.toml").touch()
    script(venv / "bin" / "accelerate", f"#!{venv}/bin/python")
    script(tmp_path / "tool", f"#!{venv}/bin/python")
    (tmp_path / "train.py").touch()
    found = {"torch": (2, 13), "vllm": (0, 32)}
    path = {"PATH": f"{venv}/bin:/usr/bin:/bin"}
    for argv, given_ in (
        ([f"{venv}/bin/python", "train.py"], {}),
        ([".venv/bin/python", "train.py"], {}),
        (["python", "train.py"], path),
        (["accelerate", "launch"], path),
        (["./tool"], {}),
        (["uv", "run", "train.py"], {}),
        (["uv", "run", "python", "train.py"], {}),
    ):
        assert releases(argv, given_, tmp_path) == found, argv
        assert job_stack.has_cuda(argv, given_, tmp_path)
    (tmp_path / "sub").mkdir()
    assert releases(["uv", "run", "x"], {}, tmp_path / "sub") == found


def test_what_cannot_be_told_for_sure_is_unknown(tmp_path: Path) -> None:
    venv = environment(tmp_path / ".venv", "torch-2.13.0")
    (tmp_path / "pyproject.toml").touch()
    script(tmp_path / "job.sh", "#!/bin/bash")
    (tmp_path / "inline.py").write_text(
        "#!/usr/bin/env -S uv run\n# /// script\n# dependencies = ['torch==2.8']\n# ///\n"
    )
    (tmp_path / "old" / "torch").mkdir(parents=True)
    active = {"PATH": f"{venv}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(venv)}
    for argv, given_ in (
        (["bash", "job.sh"], active),  # it may enter another one
        (["./job.sh"], active),
        (["no-such-command"], active),
        (["/usr/bin/python3", "train.py"], active),
        (["uv", "run", "--with", "torch==2.8", "train.py"], active),
        (["uv", "run", "inline.py"], active),
        (["uv"], active),
        (["uv", "run", "x"], {"UV_PROJECT_ENVIRONMENT": "elsewhere"}),
        (["python", "x"], {**active, "PYTHONPATH": str(tmp_path / "old")}),
    ):
        assert releases(argv, given_, tmp_path) == {}, argv


def test_a_pytorch_without_cuda_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, cuda in (("cpu", False), ("gpu", True)):
        venv = environment(tmp_path / name, "torch-2.13.0", cuda=cuda)
        found, _ = promise.told(60 * GIB, [f"{venv}/bin/python"], {}, SPARK)
        assert (BOTH[0] in found) is cuda


def test_without_a_sampler_nobody_knows_that_the_memory_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sample, "PATH", str(tmp_path / "none"))
    assert promise.this_host() == Host(meminfo()["MemTotal"], False, len(os.sched_getaffinity(0)))


def test_the_options_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--wait=x", "--", "true"]) == 2
    assert "--wait: got 'x', expected a duration" in capsys.readouterr().err
    assert cli.main(["--plain-env=x", "--", "true"]) == 2
