"""A git repository with vLLM's layout, an index for it, a stack below it: everything of a build but vLLM itself.

Stand-ins, named so: `tiny-builder` for setuptools with cmake and ninja (it calls make, which compiles what is missing),
and a checkout of two C files for vLLM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import packaging
import pytest

from sparkhost.base.resource import UPLOADS
from sparkhost.stack import store as stack_store
from sparkhost.vllm_source import check as vllm_source_check
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.record import Record, read_record
from sparkhost.vllm_source.run import carry_out
from sparkhost.vllm_source.steps import Build
from sparkhost.vllm_source.store import Request, home, key_of
from tests.unit import stack_hosts
from tests.unit.stack_hosts import release
from tests.unit.stack_wheels import CUDA_13, elf, wheel

BACKEND = """\
import base64, hashlib, pathlib, subprocess, sys, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    subprocess.run([sys.executable, "setup.py", "build"], check=True)
    version = pathlib.Path("vllm/version.txt").read_text().strip()
    info = f"vllm-{version}.dist-info"
    files = {str(p): p.read_bytes() for p in sorted(pathlib.Path("vllm").rglob("*")) if p.is_file()}
    lines = pathlib.Path("requirements/common.txt").read_text().splitlines()
    requires = "".join(f"Requires-Dist: {line}\\n" for line in lines)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\\nName: vllm\\nVersion: {version}\\n{requires}".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\\nGenerator: tiny\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\\nvllm = vllm:main\\n"
    name = f"vllm-{version}-py3-none-any.whl"
    rows = ""
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows += f"{path},sha256={digest},{len(data)}\\n"
        archive.writestr(f"{info}/RECORD", rows + f"{info}/RECORD,,\\n")
    return name
"""
SETUP = """\
import os, subprocess, sys
import packaging  # the stack's: what is compiled against must be there
assert sys.argv[1:] == ["build"]
os.makedirs("build", exist_ok=True)
subprocess.run(["make", "-f", "rules.mk", "-j", os.environ["MAX_JOBS"], "vllm/_C.so"], check=True)
print("compiled by", os.getuid(), "with MAX_JOBS", os.environ["MAX_JOBS"])
"""
RULES = """\
vllm/_C.so: build/first.o build/second.o
\tgcc -shared -o $@ $^
build/first.o: csrc/first.c
\tgcc -fPIC -c -o $@.new $< && mv $@.new $@ && echo first >> build/compiled
build/second.o: csrc/second.c build/first.o
\ttest ! -p GATE || cat GATE
\tgcc -fPIC -c -o $@.new $< && mv $@.new $@ && echo second >> build/compiled
"""
FIRST = """\
int answer(void);
int ask(void) { return answer(); }
"""
INIT = """\
import ctypes, pathlib

def answer():
    return ctypes.CDLL(str(pathlib.Path(__file__).with_name("_C.so"))).ask()

def main():
    print(answer())
"""
TORCH_OUT = """\
import pathlib
for path in [*pathlib.Path("requirements").rglob("*.txt"), pathlib.Path("pyproject.toml")]:
    lines = path.read_text().splitlines(True)
    path.write_text("".join(line for line in lines if "torch" not in line))
"""
PLAIN_TORCH = {"torch/__init__.py": b""}
CUDA_TORCH = {
    **PLAIN_TORCH,
    "torch/version.py": b"cuda = '13.0'\n",
    "torch/lib/libtorch_cuda.so": elf([CUDA_13]),
}


@dataclass
class World:
    """Where a build is tried."""

    gate: Path
    """A FIFO, where there is one: the second object waits for a writer."""
    index: Path
    repository: Path
    release: str
    """Of the stack."""
    files: dict[str, str] = field(default_factory=dict)

    def commit(self, changed: Mapping[str, str] | None = None) -> str:
        """Commits the checkout with these files changed; the commit's id."""
        self.files.update(changed or {})
        for name, text in self.files.items():
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        git(self.repository, "add", "--all")
        git(self.repository, "commit", "--quiet", "--allow-empty", "--message", "A commit")
        return git(self.repository, "rev-parse", "HEAD")

    def request(self, commit: str, variables: Mapping[str, str] | None = None) -> Request:
        return Request(str(self.repository), commit, None, str(self.index), 64 * 2**20, 3, 2**20, dict(variables or {}))

    def build(self, commit: str) -> Build:
        request = self.request(commit)
        return Build(request, key_of(request, self.release), self.release, stack_hosts.UV)

    def run(self, build: Build) -> str:
        """Carries a build out; the step that failed with what it said, "" where none did."""
        failed = carry_out(build, None)
        return f"{failed.name}: {failed.note}" if failed else ""


def git(where: Path, *words: str) -> str:
    # The same content is the same commit, whenever it is made.
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-01T00:00:00Z")
    environment = {**os.environ, **dates, "GIT_CONFIG_GLOBAL": "/dev/null"}
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(where), *who, *words], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


def repacked(folder: Path) -> Path:
    """The `packaging` of these tests, as a wheel: every stack has one."""
    source = Path(packaging.__file__).parent
    files = {f"packaging/{path.relative_to(source)}": path.read_bytes() for path in source.rglob("*.py")}
    return wheel(folder, "packaging", packaging.__version__, files)


def stack_of(
    folder: Path, torch: Mapping[str, bytes] = PLAIN_TORCH, version: str = "2.13.0", more: Sequence[Path] = ()
) -> str:
    """Installs a release with torch of a kind, `packaging`, alpha and a vLLM, and makes it the one in use; its name."""
    folder.mkdir(exist_ok=True)
    wheels = [wheel(folder, "torch", version, torch), wheel(folder, "alpha"), wheel(folder, "vllm", "0.1")]
    made = release([*wheels, repacked(folder), *more])
    made.deploy()
    return made.name


def world_in(root: Path) -> World:
    """Everything below a directory of the test: repository, index, stack. The stores must lie there already."""
    index, repository, gate = root / "index", root / "vllm.git-checkout", root / "gate"
    index.mkdir()
    wheel(index, "tiny-builder", "1.0", {"tiny_builder.py": BACKEND.encode()})
    wheel(index, "beta")
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    return World(gate, index, repository, stack_of(root / "wheels"), checkout_files(gate))


def headers(root: Path) -> Path:
    """A directory of Python headers, as python3-dev brings it, with nothing in it that is needed here."""
    place = root / "include"
    for name in {Path(stack_hosts.INTERPRETER).name, Path(os.path.realpath("/usr/bin/python3")).name}:
        (place / name).mkdir(parents=True)
        (place / name / "Python.h").touch()
    return place


def record_of(build: Build) -> Record:
    found = read_record(build.key)
    assert found is not None
    return found


DRIVER = """\
import json, signal, sys
from pathlib import Path
from sparkhost.stack import store as stack_store
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import run as vllm_source_run
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.steps import Build
given = json.loads(sys.argv[1])
stack_store.STORE, vllm_source_store.STORE, vllm_source_store.CUDA, vllm_source_record.STATE = map(Path, given["paths"])
signal.signal(signal.SIGTERM, vllm_source_run.interrupted)
build = Build(vllm_source_store.Request(**given["request"]), *given["rest"])
sys.exit(0 if vllm_source_run.carry_out(build, None) is None else 1)
"""


def in_background(build: Build) -> subprocess.Popen[bytes]:
    """The same build by a process of its own, as the unit has it."""
    paths = (stack_store.STORE, vllm_source_store.STORE, vllm_source_store.CUDA, vllm_source_record.STATE)
    given = {
        "paths": [str(path) for path in paths],
        "request": vars(build.request),
        "rest": [build.key, build.release, build.uv],
    }
    environment = {**os.environ, "PYTHONPATH": str(Path(vllm_source_store.__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", DRIVER, json.dumps(given)], env=environment, start_new_session=True)


def checkout_files(gate: Path) -> dict[str, str]:
    return {
        "use_existing_torch.py": TORCH_OUT,
        "pyproject.toml": '[build-system]\nrequires = [\n  "tiny-builder",\n  "torch == 9.9",\n]\n'
        'build-backend = "tiny_builder"\n',
        "requirements/build.txt": "tiny-builder\ntorch==9.9\n",
        "requirements/common.txt": "alpha>=1.0\nbeta>=1.0\n",
        "setup.py": SETUP,
        "rules.mk": RULES.replace("GATE", str(gate)),
        "csrc/first.c": FIRST,
        "csrc/second.c": "int answer(void) { return 42; }\n",
        "vllm/__init__.py": INIT,
        "vllm/version.txt": "0.33.0\n",
    }


def places(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a build touches, below a directory of the test."""
    monkeypatch.setattr(stack_store, "STORE", root / "opt/sparkfleet/stacks")
    monkeypatch.setattr(vllm_source_store, "STORE", root / "opt/sparkfleet/vllm-source")
    monkeypatch.setattr(vllm_source_store, "CUDA", root / "cuda.env")
    monkeypatch.setattr(vllm_source_record, "STATE", root / "var/sparkfleet/vllm-source")
    monkeypatch.setattr(vllm_source_check, "INCLUDES", headers(root))


def placed(root: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    places(root, monkeypatch)
    return world_in(root)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield placed(tmp_path, monkeypatch)
    UPLOADS.clear()


def python(key: str, program: str) -> str:
    command = [str(home(key) / "bin" / "python"), "-I", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def states(build: Build) -> dict[str, str]:
    return {step.name: step.state for step in record_of(build).steps}


def compiled(build: Build) -> list[str]:
    """Which objects were compiled, in order, over all tries."""
    return (build.source / "build" / "compiled").read_text().split()
