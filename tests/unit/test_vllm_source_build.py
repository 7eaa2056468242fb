"""Builds of a checkout with vLLM's layout, by the real steps: git, uv, the compiler, a directory of wheels."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparkhost import stack_store, vllm_source_check, vllm_source_record, vllm_source_store
from sparkhost.resource import UPLOADS
from sparkhost.vllm_source_run import NAMES, STEPS, carry_out
from sparkhost.vllm_source_shell import Shell
from sparkhost.vllm_source_steps import Build
from sparkhost.vllm_source_store import current, home, is_whole, key_of
from tests.unit import small_wheels, stack_hosts
from tests.unit.stack_wheels import CUDA_12, CUDA_13, elf, serving, wheel
from tests.unit.vllm_checkout import CUDA_TORCH, World, headers, in_background, record_of, stack_of, world_in


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield placed(tmp_path, monkeypatch)
    UPLOADS.clear()


def placed(root: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """All that a build touches, below a directory of the test."""
    monkeypatch.setattr(stack_store, "STORE", root / "opt/stacks")
    monkeypatch.setattr(vllm_source_store, "STORE", root / "opt/vllm-source")
    monkeypatch.setattr(vllm_source_store, "CUDA", root / "cuda.env")
    monkeypatch.setattr(vllm_source_record, "STATE", root / "var/vllm-source")
    monkeypatch.setattr(vllm_source_check, "INCLUDES", headers(root))
    return world_in(root)


def python(key: str, program: str) -> str:
    command = [str(home(key) / "bin" / "python"), "-I", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def states(build: Build) -> dict[str, str]:
    return {step.name: step.state for step in record_of(build).steps}


def compiled(build: Build) -> list[str]:
    """Which objects were compiled, in order, over all tries."""
    return (build.source / "build" / "compiled").read_text().split()


def test_a_build_is_in_use_when_it_was_compiled_installed_and_imported(world: World) -> None:
    build = world.build(world.commit())
    assert world.run(build) == ""
    assert current() == build.key
    told = python(
        build.key,
        "import vllm, torch, alpha, beta, importlib.metadata as m;"
        "print(vllm.answer(), m.version('vllm'), torch.__file__, alpha.__file__, beta.__file__, sep='\\n')",
    ).splitlines()
    assert told[:2] == ["42", "0.33.0"]
    release, root = stack_store.home(world.release), home(build.key)
    assert [Path(path).is_relative_to(release) for path in told[2:]] == [True, True, False]
    assert Path(told[4]).is_relative_to(root)  # not in the stack: from the index
    assert subprocess.run([root / "bin" / "vllm"], capture_output=True, text=True, check=True).stdout == "42\n"
    # The stack is as it was: nothing was written there, not even bytecode.
    manifest = stack_store.read_manifest(release)
    assert manifest
    assert stack_store.fingerprint(release) == manifest.fingerprint


def test_each_step_is_noted_with_its_time_and_the_work_is_gone(world: World) -> None:
    build = world.build(world.commit())
    assert world.run(build) == ""
    path = vllm_source_record.STATE / f"{build.key}.json"
    steps = json.loads(path.read_text())["steps"]
    assert [step["name"] for step in steps] == list(NAMES)
    assert {(step["state"], step["status"]) for step in steps} == {("done", 0)}
    assert all(step["seconds"] >= 0 and step["started"].endswith("+00:00") for step in steps)
    assert sum(step["seconds"] for step in steps) > 0
    assert "MAX_JOBS=" in steps[NAMES.index("compile")]["note"]
    assert list((vllm_source_record.STATE / "work").iterdir()) == []
    log = vllm_source_record.log_of(build.key).read_text()
    assert "== compile: done after" in log
    assert world.run(build) == ""
    assert vllm_source_record.log_of(build.key).read_text() == log


def test_what_is_installed_is_roots_alone_and_every_file_is_known(world: World) -> None:
    build = world.build(world.commit())
    assert world.run(build) == ""
    root = home(build.key)
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        assert status.st_uid == os.geteuid()
        assert stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o022, path
    assert vllm_source_store.changed(build.key) == []
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=root, check=False).returncode == 0
    site = next(root.glob("lib/python3*/site-packages"))
    (site / "vllm" / "__init__.py").write_text("answer = lambda: 43\n")
    (site / "zz.pth").write_text("import os\n")
    prefix = site.relative_to(root)
    assert vllm_source_store.changed(build.key) == [
        f"{prefix}/zz.pth: was added",
        f"{prefix}/vllm/__init__.py: was changed",
    ]
    assert not is_whole(build.key)


def test_a_build_that_is_killed_while_it_compiles_goes_on_where_it_was(world: World) -> None:
    """As systemd or a reset ends it: every process at once, without a word."""
    build = world.build(world.commit())
    os.mkfifo(world.gate)
    with in_background(build) as process:
        with world.gate.open("w"):  # opens when the compile of the second object waits there
            kill_all(build)
        assert process.wait(timeout=60) != 0
    world.gate.unlink()
    assert compiled(build) == ["first"]
    stopped = record_of(build).stopped
    assert stopped
    assert (stopped.name, stopped.state) == ("compile", "running")
    assert world.run(build) == ""
    log = vllm_source_record.log_of(build.key).read_text()
    assert log.count("gcc -fPIC") == 2
    assert log.count("-c -o build/first.o.new") == 1
    assert [line for line in log.splitlines() if line.endswith("done before")] == [
        f"== {name}: done before" for name in ("checkout", "environment", "existing-torch", "requirements")
    ]
    assert python(build.key, "import vllm; print(vllm.answer())") == "42"


def kill_all(build: Build) -> None:
    """The runner, whose command line names the build, and then all that have the build's directory for a TMPDIR."""
    for file, mark in (("cmdline", build.key.encode()), ("environ", f"TMPDIR={build.work}\0".encode())):
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                if process.name.isdecimal() and mark in (process / file).read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)


def test_a_build_that_is_stopped_says_so_and_leaves_no_process(world: World) -> None:
    build = world.build(world.commit())
    os.mkfifo(world.gate)
    with in_background(build) as process, world.gate.open("w"):
        process.terminate()
        assert process.wait(timeout=60) == 1
    step = record_of(build).step("compile")
    assert step
    assert (step.state, step.status, step.note) == ("failed", -signal.SIGTERM, "was stopped")
    assert current() == ""


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


def test_a_branch_that_moves_does_not_move_the_build(world: World) -> None:
    wanted = world.commit()
    world.commit({"csrc/second.c": "int answer(void) { return 43; }\n"})
    build = world.build(wanted)
    assert world.run(build) == ""
    assert python(build.key, "import vllm; print(vllm.answer())") == "42"


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


def test_foreign_code_runs_as_the_account_and_what_is_installed_is_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole of it as nobody, from a repository of root's: where nobody can come, unlike pytest's directories."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        root.chmod(0o755)
        monkeypatch.setattr(stack_hosts, "INTERPRETER", str(Path("/usr/bin/python3").resolve()))
        monkeypatch.setattr(stack_hosts, "UV", shutil.copy(stack_hosts.UV, root))
        world = placed(root, monkeypatch)
        build, nobody = world.build(world.commit()), pwd.getpwnam("nobody")
        build = replace(build, uv=stack_hosts.UV)
        assert carry_out(build, nobody) is None
        log = vllm_source_record.log_of(build.key).read_text()
        assert f"compiled by {nobody.pw_uid} with MAX_JOBS" in log
        assert python(build.key, "import vllm; print(vllm.answer())") == "42"
        owned = [path for path in home(build.key).rglob("*") if path.lstat().st_uid != 0]
        assert owned == []
        UPLOADS.clear()


def test_a_link_in_what_was_built_does_not_bring_in_a_file_of_roots(world: World, tmp_path: Path) -> None:
    """The build's account could put one there: root would make what it leads to readable for everybody."""
    secret = tmp_path / "secret"
    secret.write_text("x")

    def planted(build: Build, shell: Shell) -> str:
        site = next(build.image.glob("lib/python3*/site-packages"))
        (site / "leak").symlink_to(secret)
        return ""

    place = NAMES.index("install")
    failed = carry_out(world.build(world.commit()), None, [*STEPS[:place], ("planted", planted), *STEPS[place:]])
    assert failed
    assert failed.name == "install"
    assert "leak' in what was built is a link or no regular file" in failed.note


def test_a_build_in_use_by_a_process_stays_when_another_takes_its_place(world: World) -> None:
    first = world.build(world.commit())
    assert world.run(first) == ""
    with subprocess.Popen(
        [home(first.key) / "bin" / "python", "-c", "import vllm; print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as job:
        assert job.stdout
        assert job.stdout.readline() == b"1\n"
        second = world.build(world.commit({"vllm/version.txt": "0.34.0\n"}))
        assert world.run(second) == ""
        assert vllm_source_store.builds() == sorted([first.key, second.key])
        job.communicate(b"\n")
    third = world.build(world.commit({"vllm/version.txt": "0.35.0\n"}))
    assert world.run(third) == ""
    assert vllm_source_store.builds() == [third.key]


def test_a_new_stack_is_another_build_and_the_old_stack_stays_below_the_old_one(world: World, tmp_path: Path) -> None:
    commit = world.commit()
    build = world.build(commit)
    assert world.run(build) == ""
    old, world.release = world.release, stack_of(tmp_path / "newer", version="2.14.0")
    again = world.build(commit)
    assert again.key != build.key
    assert vllm_source_store.bases() == [old]
    assert world.run(again) == ""
    assert vllm_source_store.bases() == [world.release]


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
