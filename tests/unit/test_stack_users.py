"""What users get of a stack: constraints that uv itself follows, the programs, and the measure as a whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from sparkfleet.settings import FleetError, StackSettings, load_fleet
from sparkfleet.stack import profile
from sparkhost.base.resource import UPLOADS, Context, Refused, from_json
from sparkhost.stack import cli as stack_cli
from sparkhost.stack import store as stack_store
from sparkhost.stack.users import constraints, snippet
from tasks import stack
from tasks.lib.templates import render
from tests.unit.stack_hosts import MACHINE, UV, release
from tests.unit.stack_wheels import Index, serving, wheel

LOCK_WITH_CPU_TORCH = (
    f"# profile lab, {MACHINE}, CPython 3.11, glibc 2.36\n"
    f"torch==2.10.0 --hash=sha256:{'0' * 64}  # torch-2.10.0-cp312-cp312-manylinux_2_28_{MACHINE}.whl 10\n"
)
VERSIONS = {"torch": "2.13.0", "vllm": "0.32.0", "nvidia-nvvm": "13.0.88", "six": "1.17.0", "tokenspeed-triton": "3.9"}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A double of PyPI with a later torch than the stack's, for another CUDA, and flash-attn."""
    folder = tmp_path / "index"
    folder.mkdir()
    tag = "cp312-cp312-manylinux_2_28_aarch64"
    for name, version in (("torch", "2.13.0"), ("torch", "2.15.0"), ("vllm", "0.32.0"), ("flash-attn", "2.8.3")):
        wheel(folder, name, version, tag=tag)
    wheel(folder, "six", "1.17.0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    with serving(folder) as found:
        monkeypatch.setenv("UV_DEFAULT_INDEX", found.simple)
        yield found


def resolved(requirement: str, **environment: str) -> tuple[int, str]:
    platform = ("--python-platform", "aarch64-manylinux_2_39", "--python-version", "3.12", "--only-binary", ":all:")
    done = subprocess.run(
        [UV, "pip", "compile", "--no-python-downloads", "--quiet", "--no-header", "--no-annotate", *platform, "-"],
        input=requirement,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return done.returncode, (done.stdout or done.stderr).strip()


def test_a_users_own_environment_gets_the_build_for_this_cuda(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "cuda-constraints.txt"
    path.write_text("".join(f"{line}\n" for line in constraints(VERSIONS, cuda=True)))
    assert resolved("torch") == (0, "torch==2.15.0"), "what happens without"
    assert resolved("torch", UV_CONSTRAINT=str(path)) == (0, "torch==2.13.0")
    assert resolved("six", UV_CONSTRAINT=str(path)) == (0, "six==1.17.0")
    assert resolved("flash-attn") == (0, "flash-attn==2.8.3")
    code, said = resolved("flash-attn", UV_CONSTRAINT=str(path))
    assert code
    assert "flash-attn" in said


def test_only_what_is_of_cuda_binds_everybody() -> None:
    assert constraints(VERSIONS, cuda=True) == [
        "nvidia-nvvm==13.0.88",
        "torch==2.13.0",
        "vllm==0.32.0",
        "flash-attn<0",
        "flash-attn-3<0",
    ]
    assert "six==1.17.0" in constraints(VERSIONS, cuda=False)


def test_a_project_with_the_snippet_locks_these_builds_for_a_spark(index: Index, tmp_path: Path) -> None:
    """`uv add torch flash-attn` as a project would; for x86_64 the snippet says nothing."""
    scopes = [f"sys_platform == 'linux' and platform_machine == '{machine}'" for machine in ("aarch64", "x86_64")]
    project = {"name": "x", "version": "0", "requires-python": ">=3.11", "dependencies": ["torch", "flash-attn"]}
    for name, version in (("torch", "2.15.0"), ("flash-attn", "2.8.3")):
        wheel(index.folder, name, version, tag="cp312-cp312-manylinux_2_28_x86_64")
    locked = {}
    for scope in scopes:
        folder = tmp_path / scope[-7:-1]
        folder.mkdir()
        environments = f"[tool.uv]\nenvironments = {json.dumps([scope])}\n"
        text = snippet(VERSIONS).replace("[tool.uv]\n", environments)
        (folder / "pyproject.toml").write_text(tomli_w.dumps({"project": project}) + text)
        command = [UV, "lock", "--quiet", "--python", sys.executable]
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        content = tomllib.loads((folder / "uv.lock").read_text())
        locked[scope[-7:-1]] = {one["name"]: one["version"] for one in content["package"] if one["name"] != "x"}
    assert locked == {"arch64": {"torch": "2.13.0"}, "x86_64": {"torch": "2.15.0", "flash-attn": "2.8.3"}}


def test_the_profile_sets_the_constraints_unless_the_user_did(tmp_path: Path) -> None:
    text = render("stack/profile.sh").replace("/opt/sparkfleet/stacks", str(tmp_path))
    (tmp_path / "profile.sh").write_text(text)

    def got(**environment: str) -> str:
        command = ["sh", "-euc", '. ./profile.sh; echo "${UV_CONSTRAINT-unset}"']
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert got() == "unset", "there is no stack"
    (tmp_path / "current").mkdir()
    (tmp_path / "current/cuda-constraints.txt").touch()
    assert got() == f"{tmp_path}/current/cuda-constraints.txt"
    assert got(UV_CONSTRAINT="") == ""
    assert got(UV_CONSTRAINT="mine") == "mine"


def test_spark_python_without_a_stack_is_one_line(tmp_path: Path) -> None:
    script = render("stack/spark-python").replace("/opt/sparkfleet/stacks", str(tmp_path))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (127, 1)
    assert "no stack is installed on this host" in done.stderr


def test_spark_stack_lists_and_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stack_store, "STORE", tmp_path / "stacks")
    assert stack_cli.main([]) == 1
    assert stack_cli.main(["path"]) == 1
    assert stack_cli.main(["verify"]) == 1
    assert stack_cli.main(["nonsense"]) == 2
    made = release([wheel(tmp_path, "torchless")])
    made.deploy()
    UPLOADS.clear()
    capsys.readouterr()
    assert stack_cli.main([]) == 0
    assert capsys.readouterr().out == f"* {made.name}  1 packages\n"
    assert stack_cli.main(["list", "--json"]) == 0
    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["release"], listed["current"], [*listed["wheels"]]) == (made.name, True, ["torchless"])
    assert stack_cli.main(["path"]) == 0
    assert capsys.readouterr().out == f"{made.root}\n"
    assert stack_cli.main(["verify"]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    (next(made.root.glob("lib/*/site-packages")) / "zz.pth").write_text("import os\n")
    assert stack_cli.main(["verify", made.name]) == 1
    assert "zz.pth: was added" in capsys.readouterr().out


def test_the_measure_is_the_same_after_its_way_to_a_host() -> None:
    """Every resource as JSON and back; and the request stays small, although it names every wheel twice."""
    wanted = stack.apply(StackSettings())
    sent = [json.loads(json.dumps(resource.to_json())) for resource in wanted]
    assert [from_json(one).to_json() for one in sent] == [resource.to_json() for resource in wanted]
    assert len(json.dumps(sent)) < 250_000
    kinds = [resource.kind for resource in wanted]
    assert kinds == ["stack_release", "stack_current", "installed", "file", "file", "file", "stack_old"]
    unconstrained = stack.apply(StackSettings(constrain_users=False))
    assert [resource.kind for resource in unconstrained].count("no_file") == 1
    assert stack.remove(StackSettings())[0].kind == "no_stack", "before what it uses is taken away"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pyproject.toml", "[tool.sparkfleet\n", "pyproject.toml: "),
        ("pyproject.toml", "[project]\n", "pyproject.toml: has no 'tool'"),
        (f"lock.{MACHINE}.txt", "torch==2.10.0\n", f"lock.{MACHINE}.txt: the line `# profile …` is missing"),
        (f"lock.{MACHINE}.txt", LOCK_WITH_CPU_TORCH, "torch==2.10.0: on PyPI this is "),
    ],
)
def test_a_broken_profile_is_a_refusal_on_its_hosts_and_no_end_of_the_deploy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str
) -> None:
    """pyinfra ends the run for every host where a measure raises."""
    shutil.copytree(profile.PROFILES / "lab", tmp_path / "lab")
    (tmp_path / "lab" / name).write_text(text)
    monkeypatch.setattr(stack, "load", lambda wanted: profile.load(wanted, tmp_path))
    first = stack.apply(StackSettings(profile="lab"))[0]
    with pytest.raises(Refused) as caught:
        from_json(json.loads(json.dumps(first.to_json()))).plan(Context())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("profile: curent", "got 'curent', expected one of files/stack: current, lab, nightly, seed"),
        ("profile: ../swap", "got '../swap', expected the name of a folder below files/stack"),
        ("release: current", "got 'current', expected a release as `spark-stack list` names it"),
        ("keep: 0", "got 0, expected a number from 1 to 20"),
        ("keep: true", "got true, expected a number from 1 to 20"),
    ],
)
def test_a_mistake_in_the_fleet_file_is_one_line(tmp_path: Path, value: str, said: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(f"defaults:\n  stack:\n    {value}\nhosts:\n  spark1:\n    address: 10.0.0.1\n")
    with pytest.raises(FleetError) as caught:
        load_fleet(path)
    (line,) = caught.value.lines
    assert f"{path}:3: defaults.stack.{value.partition(':')[0]}: " in line
    assert said in line
