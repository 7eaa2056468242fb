"""The stack's looks and judges: on a stack that uv has built here, whole and broken, and on words from elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkfleet.audit.controls import stack_judges as judges
from sparkfleet.audit.model import Evidence, Judge, Judgement, NoEvidence, Observation, Status
from sparkfleet.audit.probe import as_root_stack, as_user
from sparkfleet.settings import HostSettings, StackSettings
from sparkfleet.stack.profile import load
from sparkhost.base.resource import UPLOADS
from sparkhost.stack import store as stack_store
from tests.unit.stack_hosts import MACHINE, release
from tests.unit.stack_wheels import CUDA_12, CUDA_13, elf, wheel

LAB = HostSettings(stack=StackSettings(profile="lab"))
DEFAULT = HostSettings()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stack of what the lock of `lab` names, as far as names and versions go."""
    store = tmp_path / "stacks"
    monkeypatch.setattr(stack_store, "STORE", store)
    monkeypatch.setattr(as_root_stack, "STACKS", store)
    lock = load("lab").lock(MACHINE)
    assert lock is not None
    made = release([wheel(tmp_path, one.name, one.version) for one in lock.wheels])
    made.deploy()
    # The file system's clock has ticks of some milliseconds: what is broken within one would look like the build's own.
    mark, probe = (made.root / stack_store.MANIFEST).lstat().st_ctime_ns, tmp_path / "tick"
    while not probe.exists() or probe.lstat().st_ctime_ns <= mark:
        probe.write_text("")
    yield made.root
    UPLOADS.clear()


def seen() -> Evidence:
    """What the probe sees of the store now."""
    found = {name: answer for look in as_root_stack.LOOKS.values() for name, answer in look({}).items()}
    observations = {name: Observation(*answer) for name, answer in found.items()}
    return Evidence({**observations, "architecture": Observation("uname -m", f"{MACHINE}\n")})


def test_a_stack_as_it_was_installed_passes(root: Path) -> None:
    evidence = seen()
    for judge in (judges.as_locked, judges.unchanged, judges.no_flash_attention):
        assert judge(evidence, LAB).status is Status.PASS
    for judge in (judges.cuda_13_libraries, judges.cuda_13_torch):
        assert judge(evidence, LAB).status is Status.NOT_APPLICABLE, "there is no torch in it"
    pinned = HostSettings(stack=StackSettings(release=root.name))
    assert judges.as_locked(evidence, pinned).status is Status.PASS
    other = HostSettings(stack=StackSettings(release="lab-000000000000"))
    assert judges.as_locked(evidence, other) == Judgement(Status.FAIL, "the release lab-000000000000", root.name)


BROKEN = [
    ("rm -r packaging-*.dist-info", judges.as_locked, "packaging is missing"),
    ("cp -r tqdm-*.dist-info other-1.0.dist-info", judges.as_locked, "a distribution is there twice"),
    ("sed -i 's/^Version: .*/Version: 9.9/' psutil-*.dist-info/METADATA", judges.as_locked, "psutil is 9.9, not "),
    ("sed -i 's/^Name: .*/Name: Mine_Own/' psutil-*.dist-info/METADATA", judges.as_locked, "mine-own "),
    ("cp -p tqdm/__init__.py ../x && echo y >> tqdm/__init__.py && touch -r ../x tqdm/__init__.py && rm ../x",
     judges.unchanged, "changed lib/python3"),
    ("echo import os > zz.pth", judges.unchanged, "added lib/python3"),
    ("rm tqdm/__init__.py", judges.unchanged, "missing lib/python3"),
    ("ln -sfn /bin/true ../../../bin/python", judges.unchanged, "added bin/python"),
    ("echo >> ../../../SHA256SUMS", judges.unchanged, "changed SHA256SUMS"),
    ("rm ../../../sparkfleet.json", judges.unchanged, "never found whole"),
    ("chmod 777 tqdm", judges.only_root_writes, "0 0777 lib/python3"),
    ("chown 4711 tqdm/__init__.py", judges.only_root_writes, "4711 0644 lib/python3"),
    ("mkdir flash_attn", judges.no_flash_attention, "flash_attn"),
    ("mkdir Flash_Attn-2.8.3.dist-info", judges.no_flash_attention, "Flash_Attn-2.8.3.dist-info"),
    ("rm ../../../../current", judges.as_locked, "no stack is installed"),
    ("rm ../../../../current", judges.unchanged, "no stack is installed"),
    ("rm ../../../../current", judges.only_root_writes, "no stack is installed"),
    ("rm ../../../../current", judges.cuda_13_libraries, "no stack is installed"),
    ("rm ../../../../current", judges.cuda_13_torch, "no stack is installed"),
    ("rm ../../../../current", judges.no_flash_attention, "no stack is installed"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "judge", "saw"), BROKEN)
def test_each_break_is_found_by_the_control_that_is_about_it(root: Path, command: str, judge: Judge, saw: str) -> None:
    site = next(root.glob("lib/python3*/site-packages"))
    subprocess.run(command, shell=True, check=True, cwd=site)
    verdict = judge(seen(), LAB)
    assert verdict.status is Status.FAIL
    assert saw in verdict.saw


def test_the_loader_is_asked_which_cuda_it_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that were put there later: not by our verification, which would have refused them."""
    monkeypatch.setattr(as_root_stack, "STACKS", tmp_path)
    site = tmp_path / "x/lib/python3.12/site-packages"
    for folder in ("torch/lib", "vllm", "triton/_C"):
        (site / folder).mkdir(parents=True)
    (tmp_path / "current").symlink_to("x")
    (site / "torch/version.py").write_text("cuda: Optional[str] = '13.0'\n")
    (site / "torch/lib/libtorch_cuda.so").write_bytes(machine(elf([CUDA_13])))
    evidence = seen()
    assert judges.cuda_13_libraries(evidence, DEFAULT).status is Status.PASS
    assert judges.cuda_13_torch(evidence, DEFAULT).status is Status.PASS
    (site / "vllm/_C.abi3.so").write_bytes(machine(elf([CUDA_12])))
    verdict = judges.cuda_13_libraries(seen(), DEFAULT)
    assert (verdict.status, verdict.saw) == (Status.FAIL, "vllm/_C.abi3.so libcudart.so.12")
    (site / "torch/version.py").write_text("cuda: Optional[str] = None\n")
    assert judges.cuda_13_torch(seen(), DEFAULT).status is Status.FAIL


def machine(library: bytes) -> bytes:
    """The library for this machine's processor: the loader looks at none of another."""
    number = {"x86_64": 62, "aarch64": 183}[MACHINE]
    return library[:18] + number.to_bytes(2, "little") + library[20:]


def python(output: str, rc: int = 0, error: str = "") -> Evidence:
    return Evidence({"spark_python": Observation("spark-python", output, rc, error)})


def test_what_users_start_is_the_stack_in_use() -> None:
    assert judges.starts(python("/a/x\n/a/x\n"), DEFAULT).status is Status.PASS
    assert judges.starts(python("/usr\n/a/x\n"), DEFAULT).saw == "/usr, and current is /a/x"
    assert judges.starts(python("", 127, "No such file or directory"), DEFAULT).status is Status.FAIL
    for bad in (python(""), python("/a/x\n"), python("", 1, "Traceback"), python("x\ny\n")):
        with pytest.raises(NoEvidence):
            judges.starts(bad, DEFAULT)


def test_a_host_without_spark_python_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = as_user.spark_python({})["spark_python"]
    assert (found.rc, found.output) == (127, "")


@pytest.mark.parametrize("name", ["stack_installed", "stack_changed", "stack_owner", "stack_libraries", "stack_flash"])
@pytest.mark.parametrize(
    "text", ["", "Segmentation fault\n", "x files\n", "3 distributions in x\na 1\n", "2 found\na\n"]
)
def test_words_that_are_no_answer_are_no_pass(name: str, text: str) -> None:
    judge = {
        "stack_installed": judges.as_locked,
        "stack_changed": judges.unchanged,
        "stack_owner": judges.only_root_writes,
        "stack_libraries": judges.cuda_13_libraries,
        "stack_flash": judges.no_flash_attention,
    }[name]
    evidence = Evidence({name: Observation(name, text), "architecture": Observation("uname -m", "aarch64\n")})
    with pytest.raises(NoEvidence):
        judge(evidence, DEFAULT)


def test_the_lock_is_read_as_the_deploy_reads_it() -> None:
    """By other code, and with the same result, for every lock there is."""
    for name in ("lab", "current"):
        for arch, lock in load(name).locks().items():
            assert judges.locked(name, arch) == {one.name: judges.plain(one.version) for one in lock.wheels}
    with pytest.raises(NoEvidence, match="the profile seed has no lock for x86_64"):
        judges.locked("seed", "x86_64")
