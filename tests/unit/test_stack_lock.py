"""Locks: written and read back, refused where they hold what no Spark may get, compared for a person."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparkfleet.exit_codes import CommandFailed
from sparkfleet.stack.check import problems
from sparkfleet.stack.difference import difference, summary
from sparkfleet.stack.lock import BadLock, Lock, Wheel, parse
from sparkfleet.stack.profile import load, names

ANY = "py3-none-any"
LINUX = "cp312-cp312-manylinux_2_28_aarch64"


def one(name: str, version: str, tag: str = LINUX, url: str = "") -> Wheel:
    return Wheel(name, version, f"{name.replace('-', '_')}-{version}-{tag}.whl", 1000, f"{len(name):064x}", url)


def lock(*wheels: Wheel, machine: str = "aarch64") -> Lock:
    return Lock("current", machine, "3.12", "2.39", tuple(sorted(wheels, key=lambda wheel: wheel.name)))


FINE = lock(one("torch", "2.13.0"), one("vllm", "0.32.0"), one("six", "1.17.0", ANY))


def test_a_lock_is_read_back_as_it_was_written() -> None:
    seed = replace(
        lock(
            one("torch", "2.9.0+cu130", url="https://example.org/whl/torch-2.9.0%2Bcu130.whl"), one("six", "1.0", ANY)
        ),
        commit="0" * 40,
    )
    for before in (FINE, seed):
        after = parse(before.text(), "lock")
        assert after == before
        assert after.release == before.release


def test_a_release_is_named_by_what_would_be_installed() -> None:
    other = replace(FINE, wheels=(replace(FINE.wheels[0], sha256="f" * 64), *FINE.wheels[1:]))
    python = replace(FINE, python="3.13")
    elsewhere = replace(FINE, wheels=tuple(replace(wheel, url="https://mirror.example/x") for wheel in FINE.wheels))
    assert len({FINE.release, other.release, python.release}) == 3
    assert FINE.release == elsewhere.release


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("torch==2.13.0  # torch-2.13.0-py3-none-any.whl 10", "has no hash"),
        (f"torch==2.13.0 --hash=sha256:{'0' * 64}  # torch-2.13.0.tar.gz 10", "is a source distribution"),
        (f"torch==2.13.0 --hash=sha256:{'0' * 63}  # torch-2.13.0-py3-none-any.whl 10", "expected a wheel with one"),
        (f"torch==2.13.1 --hash=sha256:{'0' * 64}  # torch-2.13.0-py3-none-any.whl 10", "its file is torch-2.13.0"),
        (f"torch>=2 --hash=sha256:{'0' * 64}  # torch-2.13.0-py3-none-any.whl 10", "expected a wheel with one"),
        (f"six==1.17.0 --hash=sha256:{'0' * 64}  # six-1.17.0-py3-none-any.whl 10", "six is locked twice"),
        ("--index-url http://evil.example", "has no hash"),
    ],
)
def test_a_line_that_is_no_wheel_by_hash_is_refused(line: str, said: str) -> None:
    with pytest.raises(BadLock, match=said) as caught:
        parse(FINE.text() + line + "\n", "files/stack/current/lock.aarch64.txt")
    assert str(caught.value).startswith("files/stack/current/lock.aarch64.txt:6: ")


@pytest.mark.parametrize("text", ["", "six==1.0\n", "".join(FINE.text().splitlines(keepends=True)[:2])])
def test_a_lock_without_head_or_wheels_is_refused(text: str) -> None:
    with pytest.raises(BadLock, match="make it anew with `sparkfleet stack lock`"):
        parse(text, "lock")


@pytest.mark.parametrize(
    ("wheels", "machine", "said"),
    [
        ([one("torch", "2.10.0")], "aarch64", "torch==2.10.0: on PyPI this is the CPU build"),
        ([one("torch", "2.10.0", LINUX.replace("aarch64", "x86_64"))], "x86_64", "a build for CUDA 12"),
        ([one("torch", "2.15.0")], "aarch64", "no build for CUDA 13.0 any more"),
        ([one("torch", "2.13.0+cpu")], "aarch64", "the CPU build"),
        ([one("torch", "2.9.0+cu128")], "aarch64", "a build for CUDA 12"),
        ([one("torch", "2.15.0+cu132")], "aarch64", "not the cu130 build"),
        ([one("torch", "2.13.0"), one("torchvision", "0.24.0+cu129")], "aarch64", "torchvision==0.24.0+cu129: a build"),
        ([one("torch", "2.13.0"), one("triton", "3.0.0+cu118")], "aarch64", "triton==3.0.0+cu118: a build for CUDA 11"),
        (
            [one("torch", "2.13.0"), one("vllm", "0.19.1")],
            "aarch64",
            "vllm==0.19.1: on PyPI this wants libcudart.so.12",
        ),
        ([one("vllm", "0.32.0")], "aarch64", "vllm==0.32.0: without torch"),
        ([one("flash-attn", "2.8.3")], "aarch64", "flash-attn==2.8.3"),
        ([one("flash-attn-3", "3.0")], "aarch64", "flash-attn-3==3.0"),
        ([one("nvidia-cuda-runtime-cu12", "12.8.90")], "aarch64", "CUDA 12's own libraries come along"),
        ([one("nvidia-nvvm", "13.5.37")], "aarch64", "nvidia-nvvm==13.5.37: not of CUDA 13.0"),
        ([one("six", "1.0", "cp312-cp312-manylinux_2_28_x86_64")], "aarch64", "is not for aarch64"),
        ([one("six", "1.0", "cp312-cp312-win_amd64")], "aarch64", "is not for aarch64"),
    ],
)
def test_what_no_spark_may_get_is_told_from_names_and_versions(wheels: list[Wheel], machine: str, said: str) -> None:
    found = problems(lock(*wheels, machine=machine))
    assert any(said in line for line in found), found


def test_what_is_fine_is_not_refused() -> None:
    assert problems(FINE) == []
    legitimate = [one("cupy-cuda12x", "13.6.0"), one("nvidia-cutlass-dsl-libs-cu12", "4.8.0")]
    assert problems(lock(*FINE.wheels, *legitimate, one("nvidia-nvvm", "13.0.88"))) == []
    assert problems(lock(one("torch", "2.9.0+cu130"), one("vllm", "0.13.0+cu130"))) == []


def test_the_difference_names_every_change() -> None:
    new = lock(one("torch", "2.14.0"), replace(FINE.wheels[0], sha256="f" * 64), one("trl", "1.0", ANY))
    assert list(difference(FINE, new)) == [
        "! six 1.17.0: another file: six-1.17.0-py3-none-any.whl",
        "~ torch 2.13.0 -> 2.14.0",
        "+ trl 1.0",
        "- vllm 0.32.0",
    ]
    assert list(difference(FINE, FINE)) == []
    assert list(difference(None, FINE)) == ["+ six 1.17.0", "+ torch 2.13.0", "+ vllm 0.32.0"]
    assert summary(FINE, FINE).endswith("3 wheels, 0.00 GB, unchanged")
    assert summary(FINE, new).endswith(f"was {FINE.release}")


@pytest.mark.parametrize("name", names())
def test_every_lock_of_the_project_may_be_installed(name: str) -> None:
    profile = load(name)
    for machine, found in profile.locks().items():
        assert problems(found) == []
        assert profile.lock_path(machine).read_text(encoding="utf-8") == found.text()


def test_the_stack_that_is_deployed_by_default_is_locked() -> None:
    found = load("current").locks()
    assert set(found) == {"aarch64", "x86_64"}
    for one_of in found.values():
        versions = {wheel.name: wheel.version for wheel in one_of.wheels}
        assert {"torch", "vllm", "torchvision", "torchaudio", "transformers", "accelerate", "peft", "trl"} <= set(
            versions
        )
        assert versions["nvidia-cuda-runtime"].startswith("13.0.")
    assert {wheel.name for wheel in found["aarch64"].wheels} == {wheel.name for wheel in found["x86_64"].wheels}


def test_a_profile_that_is_not_there_is_one_line() -> None:
    for name in ("curent", "../swap", ""):
        with pytest.raises(CommandFailed, match=r"there is no profile .*: expected current, lab, nightly, seed"):
            load(name)
