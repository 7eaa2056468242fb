"""What must not be in a CUDA 13 stack, read from files: libraries, torch's version, flash-attn."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkfleet.stack.scan import look
from sparkhost.base.elf import BadElf, needed, wants_cuda_12
from sparkhost.stack.rules import flash_attention, must_be_cuda_13, torch_problem
from tests.unit.stack_wheels import CUDA_12, CUDA_13, elf, wheel

VERSION_CUDA = "from typing import Optional\n__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n"
VERSION_CPU = "from typing import Optional\n__version__ = '2.13.0'\ncuda: Optional[str] = None\n"
LIBRARY = "torch/lib/libtorch_cuda.so"


def test_what_a_library_wants_is_read_in_its_order() -> None:
    assert needed(io.BytesIO(elf([CUDA_13, "libc.so.6"]))) == [CUDA_13, "libc.so.6"]
    assert needed(io.BytesIO(elf([]))) == []


def test_a_library_of_this_machine_is_read() -> None:
    """Not one that we have made: whatever the C library's mathematics is linked with here."""
    path = next(path for path in Path("/").glob("usr/lib/*-linux-gnu/libm.so.6"))
    with path.open("rb") as stream:
        assert "libc.so.6" in needed(stream)


LIBRARY_BYTES = elf([CUDA_12])


@given(
    cut=st.integers(0, len(LIBRARY_BYTES)),
    flipped=st.integers(0, len(LIBRARY_BYTES) - 1),
    value=st.binary(min_size=1, max_size=1),
)
@settings(max_examples=300)
def test_a_damaged_library_is_named_as_such_and_nothing_else(cut: int, flipped: int, value: bytes) -> None:
    data = LIBRARY_BYTES
    for damaged in (data[:cut], data[:flipped] + value + data[flipped + 1 :]):
        try:
            names = needed(io.BytesIO(damaged))
        except BadElf:
            continue
        assert all(isinstance(name, str) for name in names)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("libcudart.so.12", True),
        ("libcudart-faf08d9a.so.12.9.79", True),
        ("libcudart.faf08d9a.so.12", True),
        ("libcudart.so.11.0", True),
        ("libcublasLt.so.12", True),
        ("libcudart.so.13", False),
        ("libcudart.faf08d9a.so.13", False),
        # Numbers of their own: these belong to CUDA 13.0.
        ("libcusparse.so.12", False),
        ("libcufft.so.12", False),
        ("libcusolver.so.12", False),
        ("libfoo_libcudart.so.12", False),
    ],
)
def test_cuda_12_is_known_by_name_renamed_or_not(name: str, wrong: bool) -> None:
    assert wants_cuda_12([name]) == ([name] if wrong else [])


def test_only_some_packages_must_be_of_cuda_13() -> None:
    for path in ("torch/lib/libtorch_cuda.so", "vllm/_C.abi3.so", "triton/_C/libtriton.so", "torchvision/x.so.1"):
        assert must_be_cuda_13(path)
    for path in ("cupy/x.so", "torch/version.py", "vllm_x/y.so", "nvidia_cutlass_dsl/lib/x.so", "PyNvVideoCodec/y.so"):
        assert not must_be_cuda_13(path)


@pytest.mark.parametrize(
    ("version", "files", "said"),
    [
        (VERSION_CUDA, [LIBRARY], ""),
        (VERSION_CUDA.replace("'13.0'", '"13.0"'), [LIBRARY], ""),
        (VERSION_CPU, [LIBRARY], "the CPU build"),
        (VERSION_CUDA, [], "libtorch_cuda.so is not there"),
        (VERSION_CUDA.replace("13.0'", "12.8'"), [LIBRARY], "cuda is 12.8, expected 13.0"),
        ("", [LIBRARY], "the CPU build"),
    ],
)
def test_torch_is_known_by_its_files(version: str, files: list[str], said: str) -> None:
    problem = torch_problem(version, files)
    assert problem == "" if not said else said in problem


def test_flash_attn_is_known_as_a_module_and_vllms_own_is_fine() -> None:
    for path in ("flash_attn/__init__.py", "flash_attn.py", "flash_attn_3/__init__.py", "flash_attn_2_cuda.so"):
        assert flash_attention(path)
    for path in ("vllm/vllm_flash_attn/__init__.py", "vllm/flash_attn.py", "transformers/flash_attn_utils.py"):
        assert not flash_attention(path)


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("torch", {"torch/version.py": VERSION_CUDA.encode(), LIBRARY: elf([CUDA_13])}, ""),
        ("torch", {"torch/version.py": VERSION_CPU.encode(), LIBRARY: elf([CUDA_13])}, "the CPU build"),
        ("torch", {"torch/version.py": VERSION_CUDA.encode(), LIBRARY: elf([CUDA_12])}, "wants libcudart.so.12"),
        ("vllm", {"vllm-1.0.data/platlib/vllm/_C.so": elf([CUDA_12])}, "vllm/_C.so: wants libcudart.so.12"),
        ("vllm", {"vllm/_C.so": b"\x7fELF"}, "cannot be read as a library: cut short"),
        ("innocent", {"flash_attn/__init__.py": b""}, "flash-attn"),
        ("cupy-cuda12x", {"cupy/core.so": elf([CUDA_12])}, ""),
    ],
)
def test_a_wheel_is_looked_into(tmp_path: Path, name: str, files: dict[str, bytes], said: str) -> None:
    found = list(look(wheel(tmp_path, name, files=files)))
    assert found == [] if not said else [said in line for line in found] == [True]


def test_what_is_no_wheel_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x-1.0-py3-none-any.whl").write_bytes(b"PK")
    (line,) = look(tmp_path / "x-1.0-py3-none-any.whl")
    assert line == "x-1.0-py3-none-any.whl: is no wheel: File is not a zip file"
