"""What is installed: the wheel, built here, in an environment that has nothing else, used from an empty folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CLEAN = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "FLEET")}


def run(folder: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**CLEAN, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def uv(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """uv, without the network where its cache has all that it needs."""
    for variables in ({"UV_OFFLINE": "1"}, {}):
        done = run(folder, UV, *words, **variables)
        if done.returncode == 0:
            return done
    raise AssertionError(done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the sdist, as a package index has both."""
    folder = tmp_path_factory.mktemp("dist")
    uv(ROOT, "build", "--quiet", "--out-dir", folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it depends on, by uv.lock; its `bin`."""
    folder = tmp_path_factory.mktemp("installed")
    uv(folder, "venv", "--quiet", "--no-managed-python", "--python", sys.executable, "venv")
    listed = ("--frozen", "--no-dev", "--no-emit-project", "--output-file", folder / "requirements.txt")
    uv(ROOT, "export", "--quiet", *listed)
    into = ("pip", "install", "--quiet", "--python", folder / "venv")
    uv(folder, *into, "--require-hashes", "--requirement", "requirements.txt")
    uv(folder, *into, "--no-deps", wheel)
    return folder / "venv" / "bin"


def content(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    uv(ROOT, "build", "--quiet", "--wheel", "--out-dir", tmp_path)
    assert content(tmp_path / wheel.name) == content(wheel)


def test_it_holds_everything_once_and_no_other_name_at_the_top(wheel: Path) -> None:
    found = content(wheel)
    assert {name.partition("/")[0] for name in found} == {"sparkfleet", "sparkhost", f"sparkfleet-{VERSION}.dist-info"}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "sparkfleet", "tasks", "files", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("an unpacked copy: nothing says which files are ours")
    for name in [*listed.stdout.splitlines(), "deploy.py"]:
        there = name if name.startswith("sparkfleet/") else f"sparkfleet/measures/{name}"
        there = there.removeprefix("sparkfleet/measures/files/host/")
        if (ROOT / name).exists():
            assert found[there] == hashlib.sha256((ROOT / name).read_bytes()).hexdigest(), name


def test_there_is_one_version(venv: Path, wheel: Path, tmp_path: Path) -> None:
    assert wheel.name == f"sparkfleet-{VERSION}-py3-none-any.whl"
    assert run(tmp_path, venv / "sparkfleet", "--version").stdout == f"sparkfleet {VERSION}\n"
    # In a site's repository, which has commits of its own around the environment.
    site = venv.parent.parent
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.invalid")
    assert run(site, *git, "init", "--quiet").returncode == 0
    assert run(site, *git, "commit", "--quiet", "--allow-empty", "--message", "x").returncode == 0
    asked = run(site, venv / "python", "-c", "from sparkfleet.version import version; print(version())")
    assert asked.stdout == f"{VERSION}\n"


def drift(folder: Path, program: Path) -> Any:
    done = run(folder, program, "drift", "@local", "--json", "-")
    assert done.returncode in (1, 2), done.stderr
    return json.loads(done.stdout)["hosts"]["@local"]["measures"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a measure is planned as root")
def test_from_an_empty_folder_it_wants_what_the_checkout_wants(venv: Path, tmp_path: Path) -> None:
    found = drift(tmp_path, venv / "sparkfleet")
    assert found == drift(ROOT, Path(sys.executable).with_name("sparkfleet"))
    assert found["swap"]["changes"]
    assert list(tmp_path.iterdir()) == []


def test_the_name_tasks_is_left_to_others(venv: Path, tmp_path: Path) -> None:
    ask = "import sparkfleet.operations as o; o.swap; import tasks"
    assert "No module named 'tasks'" in run(tmp_path, venv / "python", "-c", ask).stderr
    (tmp_path / "tasks.py").touch()
    assert run(tmp_path, venv / "python", "-c", f"{ask}; print(tasks.__file__)").stdout == f"{tmp_path}/tasks.py\n"


def test_uvx_runs_it(wheel: Path, tmp_path: Path) -> None:
    done = uv(tmp_path, "tool", "run", "--no-managed-python", "--from", wheel, "sparkfleet", "--version")
    assert done.stdout == f"sparkfleet {VERSION}\n"
