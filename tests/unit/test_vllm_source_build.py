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
from dataclasses import replace
from pathlib import Path

import pytest

from sparkhost.base.resource import UPLOADS
from sparkhost.stack import store as stack_store
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.run import NAMES, STEPS, carry_out
from sparkhost.vllm_source.shell import Shell
from sparkhost.vllm_source.steps import Build
from sparkhost.vllm_source.store import current, home, is_whole
from tests.unit import stack_hosts
from tests.unit.vllm_checkout import World, compiled, in_background, placed, python, record_of, stack_of
from tests.unit.vllm_checkout import world as world


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


def test_a_branch_that_moves_does_not_move_the_build(world: World) -> None:
    wanted = world.commit()
    world.commit({"csrc/second.c": "int answer(void) { return 43; }\n"})
    build = world.build(wanted)
    assert world.run(build) == ""
    assert python(build.key, "import vllm; print(vllm.answer())") == "42"


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
