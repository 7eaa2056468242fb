"""What each step of a build refuses, resolves and says: the real steps, by git, uv, gcc and a directory of wheels."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sparkhost.vllm_source import check as vllm_source_check
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.steps import Build
from sparkhost.vllm_source.store import current, home, key_of
from tests.unit import small_wheels, stack_hosts
from tests.unit.stack_wheels import CUDA_12, CUDA_13, elf, serving, wheel
from tests.unit.vllm_checkout import CUDA_TORCH, World, compiled, python, record_of, stack_of, states
from tests.unit.vllm_checkout import world as world


def test_a_step_that_fails_is_named_with_the_telling_line_and_tried_again(world: World) -> None:
    first = world.build(world.commit())
    assert world.run(first) == ""
    broken = world.build(world.commit({"csrc/second.c": "int answer(void) { return 42 }\n"}))
    told = world.run(broken)
    assert told.startswith("compile: uv: exit status 2: csrc/second.c:1:")
    assert "error: expected" in told
    assert current() == first.key  # what was in use stays
    assert python(first.key, "import vllm; print(vllm.answer())") == "42"
    assert states(broken)["compile"] == "failed"
    assert world.run(broken).startswith("compile: ")
    assert compiled(broken) == ["first"]
    mended = world.build(world.commit({"csrc/second.c": "int answer(void) { return 43; }\n"}))
    assert world.run(mended) == ""
    assert current() == mended.key
    assert vllm_source_store.builds() == [mended.key]
    assert sorted(path.name for path in vllm_source_record.STATE.glob("*.json")) == [f"{mended.key}.json"]


def test_a_commit_that_is_not_there_is_named_with_its_setting(world: World) -> None:
    world.commit()
    told = world.run(world.build("0" * 40))
    assert told == f"checkout: {world.repository} has no commit {'0' * 40} (vllm_source.commit)"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"requirements/common.txt": "alpha>=2.0\n"},
            "dependencies: vllm wants alpha>=2.0, there is 1.0: take a stack",
        ),
        ({"requirements/common.txt": "gamma\n"}, "dependencies: uv: exit status 1"),
        ({"requirements/build.txt": "tiny-builder\ngamma\n"}, "requirements: uv: exit status 1"),
        (
            {"vllm/version.txt": "0.33.1.dev1+g0123456.cu130\n"},
            "import: vllm says that it is 0.33.1.dev1+g0123456.cu130",
        ),
        ({"vllm/__init__.py": "import nothing_like_this\n"}, "import: python: ModuleNotFoundError"),
    ],
)
def test_what_would_not_work_is_told_by_the_step_that_sees_it(world: World, changed: dict[str, str], told: str) -> None:
    assert world.run(world.build(world.commit(changed))).startswith(told)
    assert current() == ""


def test_a_checkout_that_is_not_vllms_is_told(world: World) -> None:
    del world.files["use_existing_torch.py"]
    told = world.run(world.build(world.commit()))
    assert told == f"existing-torch: the checkout has no use_existing_torch.py: is {world.repository} vLLM's?"


def test_newer_requirements_are_found_where_vllm_keeps_them_now(world: World) -> None:
    world.files["requirements/build/cuda.txt"] = world.files.pop("requirements/build.txt")
    assert world.run(world.build(world.commit())) == ""


def test_an_index_is_asked_for_what_the_stack_lacks_and_for_nothing_else(world: World) -> None:
    with serving(world.index) as index:
        request = replace(world.request(world.commit()), index=index.simple)
        build = Build(request, key_of(request, world.release), world.release, stack_hosts.UV)
        assert world.run(build) == ""
        assert {name.partition("-")[0] for name, _ in index.seen} == {"tiny_builder", "beta"}


def test_what_is_beyond_the_stack_is_resolved_together_and_extras_of_the_stack_too(
    world: World, tmp_path: Path
) -> None:
    small_wheels.wheel(world.index, "gamma", "1.0", {"gamma.py": b""}, ["delta<2", "alpha", "torch"])
    for version in ("1.0", "2.0"):
        small_wheels.wheel(world.index, "delta", version, {"delta.py": version.encode()})
    small_wheels.wheel(world.index, "graph", "1.0", {"graph.py": b""})
    folder = tmp_path / "newer"
    folder.mkdir()
    extra = small_wheels.wheel(folder, "epsilon", "1.0", {"epsilon.py": b""}, ["graph; extra == 'dag'"])
    world.release = stack_of(folder, more=[extra])
    build = world.build(world.commit({"requirements/common.txt": "delta\ngamma\nepsilon[dag]\n"}))
    assert world.run(build) == ""
    step = record_of(build).step("dependencies")
    assert step
    assert step.note == "beyond the stack: delta 1.0, gamma 1.0, graph 1.0"


def test_the_tools_must_not_bring_a_torch_of_their_own(world: World) -> None:
    wheel(world.index, "torch", "2.13.0")
    wheel(world.index, "torch-user", "1.0", {"user.py": b""})
    told = world.run(world.build(world.commit({"requirements/build.txt": "tiny-builder\n", "setup.cfg": ""})))
    assert told == ""
    world.files["use_existing_torch.py"] = ""  # one that leaves torch in
    told = world.run(world.build(world.commit({"requirements/build.txt": "tiny-builder\ntorch\n"})))
    assert told == "requirements: build.txt brings in torch 2.13.0, which the stack has: vLLM would be built for it"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"vllm/_moe_C.so": elf([CUDA_12])}, f"vllm/_moe_C.so: wants {CUDA_12}: a build for CUDA 12"),
        ({"vllm/_moe_C.so": elf([CUDA_13])}, ""),
        ({"flash_attn/__init__.py": b""}, "flash_attn/__init__.py is the stack's to have"),
    ],
)
def test_what_was_built_is_looked_at_before_it_is_put_in_place(
    world: World, files: dict[str, bytes], told: str
) -> None:
    """By a dependency that brings the file, as a wheel of vLLM's would."""
    wheel(world.index, "gamma", "1.0", files)
    build = world.build(world.commit({"requirements/common.txt": "gamma\n"}))
    assert world.run(build) == (f"install: {told}" if told else "")
    assert home(build.key).exists() == (not told)


def test_what_is_missing_is_named_with_its_package(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.release = stack_of(tmp_path / "cuda", CUDA_TORCH, version="2.14.0")
    build = world.build(world.commit())
    assert "CUDA_HOME is not set for services: the measure cuda_env must be present" in world.run(build)
    vllm_source_store.CUDA.write_text(f"CUDA_HOME={tmp_path}/toolkit\n")
    build = world.build(world.commit())
    assert f"there is no {tmp_path}/toolkit/bin/nvcc: apt-get install cuda-toolkit-13-0" in world.run(build)
    few = tmp_path / "few"
    few.mkdir()
    (few / "git").symlink_to(shutil.which("git") or "")
    monkeypatch.setattr(vllm_source_check, "PATH", str(few))
    lines = list(vllm_source_check.missing_tools(build))
    assert [line for line in lines if "gcc" in line] == ["there is no gcc: apt-get install gcc"]
    assert not any("no git" in line for line in lines)


def test_room_is_asked_for_before_it_is_needed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_source_check, "PLAIN_WORK", 2**60)
    told = world.run(world.build(world.commit()))
    assert told.startswith("check: a build needs 1073741824.2 GiB on ")
    assert told.endswith("GiB are free: free some space there")
