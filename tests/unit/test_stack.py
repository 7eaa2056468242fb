"""Stacks on a host: built by uv from wheels, looked at, switched to in one step, kept while somebody uses them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparkhost.base.resource import UPLOADS, Context, Failed, Refused
from sparkhost.stack import store as stack_store
from sparkhost.stack.resources import NoStack
from tests.unit.stack_hosts import MACHINE, Release, converge, release
from tests.unit.stack_wheels import CUDA_12, CUDA_13, elf, wheel


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(stack_store, "STORE", tmp_path / "opt/sparkfleet/stacks")
    yield tmp_path / "opt/sparkfleet/stacks"
    UPLOADS.clear()


@pytest.fixture
def first(tmp_path: Path) -> Release:
    return release([wheel(tmp_path, "alpha"), wheel(tmp_path, "beta")])


@pytest.fixture
def second(tmp_path: Path) -> Release:
    return release([wheel(tmp_path, "alpha", "2.0"), wheel(tmp_path, "beta")])


def version(store: Path) -> str:
    """Of alpha, as a program that starts now gets it."""
    command = [str(store / "current/bin/python"), "-I", "-c", "import alpha; print(alpha.VERSION)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def names(store: Path) -> set[str]:
    return {path.name for path in store.iterdir()} - {".building"}


def test_a_stack_is_installed_and_a_second_look_finds_nothing(first: Release, store: Path) -> None:
    (change,) = first.resource.plan(Context())
    assert change.summary == "install the stack: 2 packages, 0.00 GB of wheels (not installed)"
    assert {need.requirement for need in change.needs} == {"alpha==1.0", "beta==1.0"}
    assert all(need in first.resource.may_need() for need in change.needs)
    assert len(first.deploy()) == 2
    assert version(store) == "1.0"
    assert names(store) == {first.name, "current"}
    assert first.deploy() == []
    assert (
        subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=first.root, check=False).returncode == 0
    )


SITE = "lib/python3*/site-packages"
DAMAGE = [
    (f"echo 'VERSION = \"6.6\"' > $(echo {SITE})/alpha/__init__.py", "alpha/__init__.py: was changed"),
    # Of the same length, and with its old times: only ctime tells.
    (
        f"cd {SITE}/alpha && cp -p __init__.py ../../../../../../x && sed -i s/1.0/6.6/ __init__.py && "
        "touch -r ../../../../../../x __init__.py",
        "alpha/__init__.py: was changed",
    ),
    (f"rm {SITE}/beta/__init__.py", "beta/__init__.py: is missing"),
    (f"echo 'import os' > $(echo {SITE})/zz.pth", "site-packages/zz.pth: was added"),
    (f"echo x > $(echo {SITE})/alpha/__pycache__/json.cpython-312.pyc", "json.cpython-312.pyc: was added"),
    (f"chmod o+w {SITE}/alpha", "site-packages/alpha: can be written by others than root"),
    (f"chown 12345 {SITE}/alpha/__init__.py", "alpha/__init__.py: can be written by others than root"),
    ("ln -sfn /bin/true bin/python", "bin/python: was changed"),
    (f"cd {SITE} && rm -r beta && ln -s /tmp beta", "site-packages/beta: was added"),
    ("echo >> SHA256SUMS", "SHA256SUMS: was changed"),
    ("rm sparkfleet.json", "its sparkfleet.json is missing or damaged"),
    ("echo '[]' > sparkfleet.json", "its sparkfleet.json is missing or damaged"),
    ("echo '{}' > sparkfleet.json", "its sparkfleet.json is missing or damaged"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGE)
def test_what_was_tampered_with_is_named_and_built_anew(first: Release, store: Path, damage: str, reason: str) -> None:
    first.deploy()
    subprocess.run(damage, shell=True, check=True, cwd=first.root)
    (line,) = first.deploy()
    assert "install the stack" in line
    assert reason in line
    assert version(store) == "1.0"
    assert names(store) == {first.name, "current"}


def test_times_alone_are_noted_anew_without_a_wheel(first: Release) -> None:
    """As after a backup was played back: everything is as it was, at another time."""
    first.deploy()
    subprocess.run("find . -type f -exec touch {} +", shell=True, check=True, cwd=first.root)
    (change,) = first.resource.plan(Context())
    assert (change.summary, change.needs) == ("note the times of its files anew; their content is right", [])
    UPLOADS.clear()
    assert len(first.deploy()) == 1


def test_a_wheel_that_was_swapped_on_the_way_is_refused(first: Release, second: Release, store: Path) -> None:
    first.deploy()
    taken = next(iter(second.resource.plan(Context()))).needs[0].sha256
    Path(UPLOADS[taken]).write_bytes(b"something else")
    with pytest.raises(Failed, match=r"alpha-2\.0-py3-none-any\.whl has SHA-256 .*: nothing was installed"):
        second.resource.apply()
    with pytest.raises(Failed, match="nothing is switched to it"):
        second.current.apply()
    assert version(store) == "1.0"
    assert names(store) == {first.name, "current"}


CPU = b"cuda: Optional[str] = None\n"
CUDA = b"cuda: Optional[str] = '13.0'\n"


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("vllm", {"vllm/_C.so": elf([CUDA_12])}, "vllm/_C.so: wants libcudart.so.12: a build for CUDA 12"),
        ("torch", {"torch/version.py": CPU}, "the CPU build of torch"),
        ("torch", {"torch/version.py": CUDA}, "libtorch_cuda.so is not there"),
        ("flash-attn", {"x.py": b""}, "flash-attn 1.0: wants CUDA 12"),
        ("innocent", {"flash_attn/__init__.py": b""}, "flash_attn/__init__.py: flash-attn"),
    ],
)
def test_what_wants_cuda_12_is_never_switched_to(
    tmp_path: Path, first: Release, store: Path, name: str, files: dict[str, bytes], said: str
) -> None:
    first.deploy()
    bad = release([wheel(tmp_path, name, files=files)])
    with pytest.raises(Failed, match="the stack is not what its lock says") as caught:
        bad.deploy()
    assert said in str(caught.value)
    assert names(store) == {first.name, "current"}


def test_a_stack_for_cuda_13_is_fine(tmp_path: Path) -> None:
    torch = {"torch/version.py": CUDA, "torch/lib/libtorch_cuda.so": elf([CUDA_13])}
    vllm = {"vllm/_C.so": elf([CUDA_13]), "vllm/vllm_flash_attn/__init__.py": b""}
    cupy = {"cupy/core.so": elf([CUDA_12])}
    wheels = [wheel(tmp_path, name, files=files) for name, files in (("torch", torch), ("vllm", vllm), ("cupy", cupy))]
    assert len(release(wheels).deploy()) == 2


def test_a_wheel_whose_record_is_wrong_is_what_its_hash_says(tmp_path: Path) -> None:
    """As PyNvVideoCodec's is: the file was changed after the RECORD was made, and the wheel is the published one."""
    path = wheel(tmp_path, "alpha", files={"alpha/__init__.py": b"X = 1\n", "alpha/data": b"before"})
    data = path.read_bytes()
    # Stored, not compressed: the content can be changed in place, with its checksum.
    old, new = b"before", b"after!"
    data = data.replace(old, new)
    path.write_bytes(data.replace(zlib.crc32(old).to_bytes(4, "little"), zlib.crc32(new).to_bytes(4, "little")))
    assert len(release([path]).deploy()) == 2


def test_two_distributions_with_a_file_of_one_name_are_accepted(tmp_path: Path) -> None:
    both = [wheel(tmp_path, name, files={"example.py": name.encode(), f"{name}.py": b""}) for name in ("alpha", "beta")]
    assert len(release(both).deploy()) == 2


PROGRAM = """
import sys, signal
print(sys.prefix, flush=True)
signal.sigwait({signal.SIGUSR1})
import beta
print(beta.__file__, flush=True)
"""


def test_a_job_keeps_its_release_when_the_stack_is_replaced_under_it(
    tmp_path: Path, first: Release, second: Release, store: Path
) -> None:
    script = (Path(__file__).parents[2] / "files/stack/spark-python").read_text()
    starter = tmp_path / "spark-python"
    starter.write_text(script.replace("/opt/sparkfleet/stacks", str(store)))
    first.deploy()
    with subprocess.Popen(
        ["sh", starter, "-I", "-c", "import signal; signal.pthread_sigmask(0, [10])" + PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
    ) as job:
        assert job.stdout
        assert job.stdout.readline().strip() == str(first.root)
        assert second.deploy(keep=1) == [
            f"{second.name}: install the stack: 2 packages, 0.00 GB of wheels (not installed)",
            f"current: link to {second.name} (was {first.name})",
        ]
        assert version(store) == "2.0"
        context = Context()
        assert list(second.old(1).plan(context)) == []
        assert context.warnings == [f"{first.root} stays: 1 processes use it (PID {job.pid})"]
        job.send_signal(signal.SIGUSR1)
        assert job.stdout.readline().startswith(str(first.root)), "what is imported late is of the same release"
    assert converge(second.old(1)) == [f"{first.name}: remove the old stack"]
    assert names(store) == {second.name, "current"}


def test_the_last_few_releases_stay(tmp_path: Path, store: Path) -> None:
    made = []
    for number in range(4):
        made.append(release([wheel(tmp_path, "alpha", f"{number}.0")]))
        context = Context()
        for one in (made[-1].resource, made[-1].current, made[-1].old(2)):
            context.pending += one.plan(context)
        planned = [f"{Path(change.what).name}: {change.summary}" for change in context.pending]
        assert made[-1].deploy(keep=2) == planned, "a dry run says the same"
    assert names(store) == {made[2].name, made[3].name, "current"}


def test_going_back_takes_what_is_there_and_nothing_else(first: Release, second: Release, store: Path) -> None:
    first.deploy()
    second.deploy()
    UPLOADS.clear()
    back = Release(first.name, replace(second.resource, pinned=first.name), replace(second.current, pinned=first.name))
    assert back.deploy() == [f"current: link to {first.name} (was {second.name})"]
    assert version(store) == "1.0"
    assert back.deploy() == []
    assert second.deploy() == [f"current: link to {second.name} (was {first.name})"]
    gone = replace(second.resource, pinned="lab-000000000000")
    with pytest.raises(Refused, match=rf"lab-000000000000 is not installed on this host .*{first.name}"):
        gone.plan(Context())
    (first.root / "constraints.txt").write_text("x")
    with pytest.raises(Refused, match=r"was changed \(constraints.txt: was changed\): take the profile's own"):
        back.resource.plan(Context())


def test_what_cannot_be_built_is_refused_before_anything_is_uploaded(first: Release) -> None:
    locks = first.resource.locks
    huge = [[*wheel[:3], 10**15, *wheel[4:]] for wheel in locks[MACHINE]["wheels"]]
    for changed, said in (
        (
            {"interpreter": "/usr/bin/python3.99"},
            "there is no /usr/bin/python3.99: apt-get install python3.99 python3.99",
        ),
        ({"uv": "/nowhere/uv"}, "there is no /nowhere/uv: the measure uv must be present"),
        ({"locks": {MACHINE: {**locks[MACHINE], "wheels": huge}}}, "GiB are free: free some space there"),
        ({"problem": "torch==2.10.0: the CPU build"}, "torch==2.10.0: the CPU build"),
    ):
        with pytest.raises(Refused) as caught:
            replace(first.resource, **changed).plan(Context())
        assert said in str(caught.value)
    with pytest.raises(Failed, match=r"the profile lab has no lock for .* \(it has: riscv64\)"):
        replace(first.resource, locks={"riscv64": locks[MACHINE]}).plan(Context())


def test_a_build_that_was_killed_leaves_nothing_for_long(first: Release, store: Path) -> None:
    for end in ("new", "wheels", "cache"):
        (store / f".lab-0123456789ab.{end}" / "x").mkdir(parents=True)
    first.deploy()
    assert names(store) == {first.name, "current"}
    (store / ".lab-0123456789ab.new").mkdir()
    assert converge(first.old(3)) == [".lab-0123456789ab.new: remove what a build that was killed has left"]
    assert names(store) == {first.name, "current"}


def test_two_deploys_do_not_build_at_a_time(first: Release, store: Path) -> None:
    store.mkdir(parents=True)
    with (store / ".building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Failed, match="another deploy builds a stack on this host"):
            first.resource.apply()
    assert len(first.deploy()) == 2


def test_removal_waits_for_those_who_use_it_and_leaves_nothing(first: Release, store: Path) -> None:
    first.deploy()
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=first.root, stdin=subprocess.PIPE) as job:
        while os.readlink(f"/proc/{job.pid}/cwd") != str(first.root):  # noqa: PTH115
            time.sleep(0.01)
        with pytest.raises(Refused, match=f"{first.root} is used by 1 processes"):
            NoStack().plan(Context())
        job.communicate(b"\n")
    assert converge(NoStack()) == ["stacks: remove"]
    assert not store.parent.exists()
