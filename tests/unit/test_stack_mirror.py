"""Locking and fetching against an index on this machine: resolved by uv itself, resumed, refused by hash."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sparkfleet.exit_codes import CommandFailed
from sparkfleet.stack import mirror
from sparkfleet.stack.check import problems
from sparkfleet.stack.lock import Lock, Wheel
from sparkfleet.stack.profile import Profile, load
from sparkfleet.stack.resolve import resolve, tags
from tests.unit.stack_wheels import Index, lock_of, locked, serving, wheel

ROOT = Path(__file__).resolve().parents[2]
BIG = bytes(range(256)) * 4096
INPUT = """\
[project]
name = "x"
version = "0"
requires-python = "==3.12.*"
dependencies = [{dependencies}]

[tool.uv.sources]
{sources}

[[tool.uv.index]]
name = "pytorch-cu130"
url = "{other}"
explicit = true

[tool.sparkfleet]
python = "3.12"
interpreter = "/usr/bin/python3.12"
glibc = "2.39"
machines = ["aarch64"]
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An empty index, which is uv's default one. What this machine's user or environment says of others is left out."""
    (tmp_path / "index").mkdir()
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(tmp_path / "index") as found:
        monkeypatch.setenv("UV_DEFAULT_INDEX", found.simple)
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def profile(tmp_path: Path, dependencies: str, sources: str = "", other: str = "http://127.0.0.1:1/simple") -> Profile:
    folder = tmp_path / "profiles" / "seed"
    folder.mkdir(parents=True)
    text = INPUT.format(dependencies=dependencies, sources=sources, other=other)
    (folder / "pyproject.toml").write_text(text)
    return load("seed", tmp_path / "profiles")


def got(cache: Path, lock: Lock, of: Profile) -> list[Wheel]:
    counted: list[int] = []
    fetched = mirror.fetch(lock, of, cache, counted.append)
    assert sum(counted) == lock.size, "a bar that does not end at 100 %"
    return fetched


def test_a_lock_has_the_best_wheel_of_each_release_for_a_spark(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that has the stack and a GPU itself, too."""
    monkeypatch.setenv("UV_CONSTRAINT", str(tmp_path / "constraints.txt"))
    monkeypatch.setenv("UV_TORCH_BACKEND", "auto")
    (tmp_path / "constraints.txt").write_text("fast<0\n")
    for tag in ("py3-none-any", "cp312-cp312-manylinux_2_28_aarch64", "cp312-cp312-manylinux_2_40_aarch64"):
        wheel(index.folder, "fast", tag=tag)
    for tag in ("cp39-abi3-manylinux_2_17_aarch64", "cp311-abi3-manylinux_2_34_aarch64", "cp313-cp313-linux_aarch64"):
        wheel(index.folder, "stable", tag=tag)
    lock = resolve(profile(tmp_path, '"fast", "stable"'), "aarch64")
    assert [one.filename for one in lock.wheels] == [
        "fast-1.0-cp312-cp312-manylinux_2_28_aarch64.whl",
        "stable-1.0-cp311-abi3-manylinux_2_34_aarch64.whl",
    ]
    assert [one.url for one in lock.wheels] == ["", ""], "the site's index is asked when they are fetched"


def test_the_choice_is_uvs_own(index: Index, tmp_path: Path) -> None:
    """What uv would install on this machine, were it the host: the same order of tags."""
    here = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    for tag in ("py3-none-any", f"{here}-abi3-manylinux_2_17_x86_64", f"{here}-{here}-manylinux_2_17_x86_64"):
        wheel(index.folder, "best", tag=tag, files={"best.py": tag.encode()})
    of = replace(profile(tmp_path, '"best"'), python=".".join(map(str, sys.version_info[:2])), glibc="2.17")
    order = [str(tag) for tag in tags(of, "x86_64")]
    best = min((path.name for path in index.folder.glob("best*")), key=lambda name: order.index(name[9:-4]))
    target = tmp_path / "target"
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--quiet", "--target", str(target), "best", "--python-platform"]
    subprocess.run([*command, "x86_64-manylinux_2_17", "--python-version", of.python], check=True)
    assert (target / "best.py").read_text() == best[9:-4]


def test_a_profile_of_other_indexes_is_locked_with_their_addresses(index: Index, tmp_path: Path) -> None:
    """The layout of `seed`: torch from an index of its own, vLLM by its address, the rest from the default index."""
    wheel(index.folder, "six")
    wheel(index.folder, "torch", "2.9.0")
    (tmp_path / "other").mkdir()
    torch = wheel(tmp_path / "other", "torch", "2.9.0+cu130", tag="cp312-cp312-manylinux_2_28_aarch64")
    vllm = wheel(tmp_path / "other", "vllm", "0.13.0+cu130", tag="cp38-abi3-manylinux_2_35_aarch64")
    with serving(tmp_path / "other") as other:
        sources = f'torch = {{ index = "pytorch-cu130" }}\nvllm = {{ url = "{other.address(vllm)}" }}'
        of = profile(tmp_path, '"torch==2.9.0+cu130", "vllm", "six"', sources, other.simple)
        lock = resolve(of, "aarch64")
        versions = {one.name: (one.version, one.url) for one in lock.wheels}
        assert versions == {
            "six": ("1.0", ""),
            "torch": ("2.9.0+cu130", other.address(torch)),
            "vllm": ("0.13.0+cu130", other.address(vllm)),
        }
        assert problems(lock) == []
        assert len(got(tmp_path / "cache", lock, of)) == 3


def test_a_source_alone_is_refused(index: Index, tmp_path: Path) -> None:
    (index.folder / "deepspeed-0.19.0.tar.gz").write_bytes(b"x")
    with pytest.raises(CommandFailed, match=r"uv cannot resolve it: .*deepspeed") as caught:
        resolve(profile(tmp_path, '"deepspeed"'), "aarch64")
    assert "\n" not in str(caught.value)


def test_every_wheel_is_fetched_once(index: Index, tmp_path: Path, cache: Path) -> None:
    paths = [wheel(index.folder, name) for name in ("alpha", "beta")]
    lock, of = lock_of(paths), profile(tmp_path, "")
    assert len(got(cache, lock, of)) == 2
    for path, one in zip(paths, lock.wheels, strict=True):
        assert mirror.path_of(one, cache).read_bytes() == path.read_bytes()
    index.seen.clear()
    assert got(cache, lock, of) == []
    assert index.seen == []


def test_a_cut_download_goes_on_where_it_ended(index: Index, tmp_path: Path, cache: Path) -> None:
    path = wheel(index.folder, "big", files={"big.bin": BIG})
    one = locked(path, index.address(path))
    index.cut_after = 300_000
    assert got(cache, lock_of([path]), profile(tmp_path, ""))[0].sha256 == one.sha256
    assert [wanted for name, wanted in index.seen if name == path.name][-1] == "bytes=300000-"


def test_what_a_killed_fetch_has_left_is_gone_on_with(index: Index, tmp_path: Path, cache: Path) -> None:
    path = wheel(index.folder, "big", files={"big.bin": BIG})
    lock = lock_of([path])
    part = mirror.path_of(lock.wheels[0], cache).with_name(f".{path.name}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(path.read_bytes()[:777_777])
    got(cache, lock, profile(tmp_path, ""))
    assert index.seen[-1] == (path.name, "bytes=777777-")
    assert not part.exists()


def test_a_server_without_ranges_sends_all_of_it_again(index: Index, tmp_path: Path, cache: Path) -> None:
    path = wheel(index.folder, "big", files={"big.bin": BIG})
    index.ranges, index.cut_after = False, 300_000
    got(cache, lock_of([path]), profile(tmp_path, ""))
    assert mirror.missing(lock_of([path]), cache) == []


def test_another_file_under_the_same_name_is_refused(index: Index, tmp_path: Path, cache: Path) -> None:
    """Replaced on the index, which says so by its hash."""
    lock = lock_of([wheel(index.folder, "alpha")])
    wheel(index.folder, "alpha", files={"alpha.py": b"import os"})
    with pytest.raises(CommandFailed, match=r"alpha==1\.0: the index has no alpha-1\.0-py3-none-any\.whl with the SHA"):
        mirror.fetch(lock, profile(tmp_path, ""), cache, lambda count: None)


def test_another_content_is_thrown_away(index: Index, tmp_path: Path, cache: Path) -> None:
    """Damaged on the way, of the right length."""
    path = wheel(index.folder, "alpha")
    lock = lock_of([path])
    lock = replace(lock, wheels=(replace(lock.wheels[0], url=index.address(path)),))
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(CommandFailed, match=r"its SHA-256 is .*: thrown away"):
        mirror.fetch(lock, profile(tmp_path, ""), cache, lambda count: None)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_damaged_wheel_of_the_cache_is_fetched_anew(index: Index, tmp_path: Path, cache: Path) -> None:
    lock, of = lock_of([wheel(index.folder, "alpha")]), profile(tmp_path, "")
    got(cache, lock, of)
    mirror.path_of(lock.wheels[0], cache).write_bytes(b"x")
    assert [one.name for one in mirror.fetch(lock, of, cache, lambda count: None)] == ["alpha"]


def test_the_second_address_is_taken_where_the_first_is_gone(index: Index, tmp_path: Path, cache: Path) -> None:
    path = wheel(index.folder, "vllm", "0.13.0+cu130")
    lock = lock_of([path])
    lock = replace(lock, wheels=(replace(lock.wheels[0], url=f"{index.url}/files/gone.whl"),))
    of = replace(profile(tmp_path, ""), fallback={"vllm": index.address(path)})
    assert len(mirror.fetch(lock, of, cache, lambda count: None)) == 1
    with pytest.raises(CommandFailed, match=r"0 of [0-9]+ bytes, .*gone\.whl: HTTP 404 .*; the same command goes on"):
        mirror.fetch(lock, replace(of, fallback={}), tmp_path / "other", lambda count: None)


def test_the_command_line_locks_checks_and_fetches(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person calls it: the profile `lab` of a copy of the project, against this index."""
    wheels = [wheel(index.folder, name) for name in ("packaging", "psutil", "tqdm")]
    copy = tmp_path / "project"
    for path in (ROOT / "sparkfleet").rglob("*.py"):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for path in (ROOT / "files/stack").glob("*/pyproject.toml"):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    monkeypatch.setenv("PYTHONPATH", f"{copy}:{ROOT / 'files/host'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def called(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-P", "-m", "sparkfleet.cli", "stack", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=copy)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = called("lock", "lab", "--machine", "x86_64", "--dry")
    assert (code, out.splitlines()[0]) == (0, "+ packaging 1.0")
    assert list((copy / "files/stack/lab").iterdir()) == [copy / "files/stack/lab/pyproject.toml"]
    assert called("fetch", "lab", "--machine", "x86_64")[0] == 4
    assert called("lock", "lab")[0] == 0
    assert "unchanged" in called("lock", "lab")[1]
    wheel(index.folder, "tqdm", "1.1")
    assert "~ tqdm 1.0 -> 1.1" in called("lock", "lab", "--machine", "x86_64", "--dry")[1]
    code, out, _ = called("fetch", "lab", "--machine", "x86_64")
    assert code == 0
    assert "3 wheels are here, 3 fetched" in out
    assert called("check", "lab", "--machine", "x86_64", "--wheels")[1].endswith(
        "fine by names, versions and content\n"
    )
    path = copy / "files/stack/lab/lock.x86_64.txt"
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    path.write_text(path.read_text().replace(f" --hash=sha256:{digest}", ""))
    code, out, err = called("check", "lab", "--machine", "x86_64")
    assert (code, out) == (4, "")
    assert err == "sparkfleet: files/stack/lab/lock.x86_64.txt:3: packaging==1.0: has no hash\n"
