"""Each trouble of a venv, made for real: wheels installed by uv, libraries made by the C compiler."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkhost.base import elf
from sparkhost.tools.doctor import project, ptxas, stack
from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.venv import Venv, normal
from tests.unit.small_wheels import install, library, new_venv

CUDART = "libcudart.so.12"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return new_venv(tmp_path / "env")


def look(venv: Path, environment: dict[str, str] | None = None) -> dict[str, Finding]:
    """On a host with a C library and no more, whatever this machine has."""
    root = venv.parent / "root"
    (root / "usr/lib").mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/libc.so.6").touch()
    return {finding.id: finding for finding in stack.look(Venv(venv), environment or {}, root)}


def torch(cuda: str, library: bool = True) -> dict[str, bytes]:
    files = {"torch/__init__.py": b"", "torch/version.py": f"__version__ = '2.10.0'\ncuda = {cuda}\n".encode()}
    return {**files, "torch/lib/libtorch_cuda.so": b""} if library else files


def test_an_empty_venv_has_no_trouble(venv: Path) -> None:
    assert look(venv) == {}


def test_the_file_and_the_distribution_that_want_cuda_12_are_named(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "vllm", "0.12.0", {"vllm/_C.abi3.so": library(tmp_path, "_C.abi3.so", CUDART)})
    finding = look(venv)["cudart-12"]
    assert finding.weight == "broken"
    assert finding.where.endswith("site-packages/vllm/_C.abi3.so")
    assert f"vllm 0.12.0 in {venv} needs {CUDART}" in finding.saw
    assert "uv pip uninstall vllm" in finding.fix


@pytest.mark.parametrize("name", ["libcudart-faf08d9a.so.12", "libcudart.faf08d9a.so.12", "libcudart.so.12.8.90"])
def test_mangled_names_are_the_same_library(venv: Path, tmp_path: Path, name: str) -> None:
    install(venv, tmp_path, "torchaudio", "2.9.0", {"torchaudio/x.so": library(tmp_path, "x.so", name)})
    assert look(venv)["cudart-12"].weight == "broken"


@pytest.mark.parametrize("name", ["libcudart.so.13", "libcudart.faf08d9a.so.13", "libcudart_static.so.12"])
def test_other_libraries_are_no_runtime_of_cuda_12(venv: Path, tmp_path: Path, name: str) -> None:
    """Nobody brings them, which is told; once somebody does, nothing is."""
    install(venv, tmp_path, "torchaudio", "2.11.0", {"torchaudio/x.so": library(tmp_path, "x.so", name)})
    assert set(look(venv)) == {"library-missing"}
    install(venv, tmp_path, "nvidia-cuda-runtime", "13.0.88", {f"nvidia/lib/{name}": (tmp_path / name).read_bytes()})
    assert look(venv) == {}


def test_cupy_for_cuda_12_is_a_warning_only(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "cupy-cuda12x", "13.6.0", {"cupy/core.so": library(tmp_path, "core.so", CUDART)})
    assert look(venv)["cudart-12"].weight == "warning"


def test_a_venv_that_brings_the_library_is_told_from_one_that_does_not(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "torch", "2.9.0", {**torch("'12.8'"), "torch/lib/x.so": library(tmp_path, "x.so", CUDART)})
    runtime = {f"nvidia/cuda_runtime/lib/{CUDART}": (tmp_path / CUDART).read_bytes()}
    install(venv, tmp_path, "nvidia-cuda-runtime-cu12", "12.8.90", runtime)
    found = look(venv)
    assert found["cudart-12"].weight == "warning"
    assert "built for CUDA 12.8" in found["torch-cuda-12"].saw


def test_a_file_of_no_distribution_is_found_too(venv: Path, tmp_path: Path) -> None:
    (Venv(venv).sites[0] / "stray.so").write_bytes(library(tmp_path, "stray.so", CUDART))
    assert "a file of no distribution" in look(venv)["cudart-12"].saw


def test_flash_attn_is_found_and_the_copy_in_vllm_is_not(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "vllm", "0.32.0", {"vllm/vllm_flash_attn/__init__.py": b""})
    assert look(venv) == {}
    install(venv, tmp_path, "flash-attn", "2.8.3", {"flash_attn/__init__.py": b""})
    assert look(venv)["flash-attn"].fix.startswith("uv pip uninstall flash-attn")


def test_a_flash_attn_without_metadata_is_found(venv: Path) -> None:
    (Venv(venv).sites[0] / "flash_attn").mkdir()
    assert "a top-level flash_attn" in look(venv)["flash-attn"].saw


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (torch("None", library=False), "torch-cpu"),
        (torch("None"), "torch-cpu"),
        ({"torch/version.py": b"__version__ = '2.10.0'\n"}, "torch-cpu"),
        (torch("'12.8'"), "torch-cuda-12"),
        (torch("'13.0'", library=False), "torch-incomplete"),
    ],
)
def test_the_build_of_torch_is_read_from_its_files(
    venv: Path, tmp_path: Path, files: dict[str, bytes], expected: str
) -> None:
    install(venv, tmp_path, "torch", "2.13.0", files)
    assert set(look(venv)) == {expected}


@pytest.mark.parametrize("line", ["'13.0'", '"13.2"', "Optional[str]"])
def test_a_cuda_13_build_of_torch_is_no_trouble(venv: Path, tmp_path: Path, line: str) -> None:
    files = torch("'13.0'") if line.startswith("O") else torch(line)
    if line.startswith("O"):
        files["torch/version.py"] = b"cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
    install(venv, tmp_path, "torch", "2.13.0", files)
    assert look(venv) == {}


def test_two_cuda_runtimes_in_one_venv_are_a_warning(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "nvidia-cuda-runtime-cu12", "12.8.90", {"nvidia/a.py": b""})
    assert look(venv) == {}
    install(venv, tmp_path, "nvidia-cuda-runtime", "13.0.96", {"nvidia/b.py": b""})
    assert look(venv)["cuda-mixed"].weight == "warning"


def triton(version: str, **programs: bytes) -> dict[str, bytes]:
    found = {
        f"triton/backends/nvidia/bin/{name.replace('_', '-')}": content for name, content in programs.items()
    }  # fmt: skip
    return {"triton/__init__.py": f"__version__ = '{version}'\n".encode(), **found}


KNOWS, DOES_NOT = b"\0sm_120a\0sm_121a\0", b"\0sm_120\0sm_120a\0"


def test_the_ptxas_in_use_is_named_with_the_reason(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "triton", "3.5.0", triton("3.5.0", ptxas=DOES_NOT))
    finding = look(venv)["ptxas-sm121a"]
    assert "triton 3.5.0 brings it along, and TRITON_PTXAS_PATH is not set" in finding.saw
    assert finding.fix.startswith("export TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas")
    good = tmp_path / "good"
    good.write_bytes(KNOWS)
    assert look(venv, {"TRITON_PTXAS_PATH": str(good)}) == {}
    assert look(venv, {"TRITON_PTXAS_BLACKWELL_PATH": str(good)}).keys() == {"ptxas-sm121a"}
    # Triton falls back to its own where the named one is missing.
    assert "/none, where no file is" in look(venv, {"TRITON_PTXAS_PATH": "/none"})["ptxas-sm121a"].saw


def test_a_newer_triton_uses_its_ptxas_for_blackwell(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "triton", "3.7.1", triton("3.7.1", ptxas=DOES_NOT, ptxas_blackwell=KNOWS))
    assert look(venv) == {}
    old = tmp_path / "old"
    old.write_bytes(DOES_NOT)
    assert "TRITON_PTXAS_BLACKWELL_PATH names it" in look(venv, {"TRITON_PTXAS_BLACKWELL_PATH": str(old)})[
        "ptxas-sm121a"
    ].saw  # fmt: skip


@pytest.mark.parametrize("files", [triton("3.6.0"), triton("3.6.0", ptxas_blackwell=b"")])
def test_a_triton_without_a_ptxas_is_told(venv: Path, tmp_path: Path, files: dict[str, bytes]) -> None:
    install(venv, tmp_path, "triton", "3.6.0", files)
    assert set(look(venv)) == {"ptxas-missing"}


def test_sources_that_ask_for_flash_attention_2_are_found(tmp_path: Path) -> None:
    new_venv(tmp_path / ".venv")
    (tmp_path / ".venv" / "in_venv.py").write_text("x = 'flash_attention_2'\n")
    (tmp_path / "fine.py").write_text('# not "flash_attention_2"\na: Literal["flash_attention_2", "sdpa"]\n')
    (tmp_path / "train.py").write_text('import x\n\nload(attn_implementation="flash_attention_2")\n')
    (found,) = project.look(tmp_path)
    assert found.where == f"{tmp_path}/train.py:3"
    assert "sdpa" in found.fix


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        ('    attn_implementation="flash_attention_2",', True),
        ("  attn_implementation: flash_attention_2", True),
        ('"_attn_implementation": "flash_attention_2"', True),
        ("--attn_implementation flash_attention_2 \\", True),
        ("--attn_implementation=flash_attention_2", True),
        ('attn_implementation: str = "flash_attention_2"', True),
        ('attn_implementation: Literal["flash_attention_2", "sdpa"] | None = "flash_attention_2"', True),
        ('attn_implementation: Literal["flash_attention_2", "sdpa"] | None = "sdpa"', False),
        ('if name == "flash_attention_2":', False),
        ('attn_implementation="sdpa"  # not "flash_attention_2"', False),
        ('attn_implementation="sdpa" if x != "flash_attention_2" else y', False),
        ("--attn_implementation flash_2 \\", True),
        ("attn_implementation: flash_2x", False),
        ("model = load(name, use_flash_attention_2=True)", True),
        ("use_flash_attention_2: bool = True", True),
        ("use_flash_attention_2=False", False),
        ("flash_attn: fa2", True),
        ("--flash_attn fa2 \\", True),
        ("flash_attn: sdpa", False),
        ("flash_attention: true", True),
        ("  flash_attention: false", False),
        ("# flash_attention: true", False),
        ("sdp_attention: true", False),
    ],
)
def test_a_line_that_asks_is_told_from_one_that_names_it(line: str, asks: bool) -> None:
    assert project.asks(line, "train.yaml") is asks


def test_the_key_of_axolotl_is_one_in_a_configuration_only() -> None:
    assert not project.asks("flash_attention: True", "model.py")


def test_what_the_compiler_links_is_what_is_read(tmp_path: Path) -> None:
    library(tmp_path, "a.so", CUDART)
    assert elf.needed_by(tmp_path / "a.so")[0] == CUDART
    with pytest.raises(elf.BadElf):
        elf.needed_by(tmp_path / "empty.c")


@given(st.binary(max_size=64), st.integers(0, 4000), st.integers(0, 20000))
def test_no_damaged_library_brings_it_down(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, cut: int
) -> None:
    directory = tmp_path_factory.getbasetemp()
    whole = directory / "whole.so"
    if not whole.exists():
        whole.write_bytes(library(directory, "made.so", CUDART))
    content = bytearray(whole.read_bytes())
    content[at : at + len(data)] = data
    damaged = directory / "damaged.so"
    damaged.write_bytes(bytes(content[: max(cut, 1)]))
    try:
        names = elf.needed_by(damaged)
    except elf.BadElf:
        return
    assert all(isinstance(name, str) for name in names)


def test_a_table_of_programs_that_is_too_small_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    header = elf.MAGIC + b"\x02\x01" + bytes(26) + struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", 8, 9)
    path.write_bytes(header + bytes(6))
    with pytest.raises(elf.BadElf):
        elf.needed_by(path)


@pytest.mark.parametrize(("name", "expected"), [("Flash_Attn", "flash-attn"), ("a.-_b", "a-b")])
def test_names_are_compared_as_installers_do(name: str, expected: str) -> None:
    assert normal(name) == expected


@pytest.mark.parametrize(("version", "expected"), [("3.5.0", (3, 5)), ("3.10.1+git", (3, 10)), ("x", (0, 0))])
def test_releases_are_compared_as_numbers(version: str, expected: tuple[int, int]) -> None:
    assert ptxas.release(version) == expected


def missing(venv: Path, tmp_path: Path, name: str, path: str, needs: str) -> Finding | None:
    install(venv, tmp_path, name, "1.0", {path: library(tmp_path, Path(path).name, needs)})
    return look(venv).get("library-missing")


def test_a_library_that_nothing_brings_is_named(venv: Path, tmp_path: Path) -> None:
    """torch without its nvidia-* packages: the import ends with libcudnn.so.9."""
    finding = missing(venv, tmp_path, "torch", "torch/lib/libtorch_cuda.so", "libcudnn.so.9")
    assert finding is not None
    assert finding.weight == "broken"
    assert "torch 1.0" in finding.saw
    assert "libcudnn.so.9" in finding.saw
    assert "--reinstall torch" in finding.fix


def test_a_library_of_another_wheel_or_under_a_link_is_there(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "nvidia-cudnn-cu13", "9.1", {"nvidia/cudnn/lib/libcudnn.so.9.1.0": b""})
    lib = Venv(venv).sites[0] / "nvidia/cudnn/lib"
    assert missing(venv, tmp_path, "torch", "torch/lib/libtorch_cuda.so", "libcudnn.so.9") is not None
    (lib / "libcudnn.so.9").symlink_to("libcudnn.so.9.1.0")
    assert "library-missing" not in look(venv)


@pytest.mark.parametrize("name", ["libcuda.so.1", "libnvidia-ml.so.1", "libpython3.12.so.1.0", "libc.so.6"])
def test_what_the_driver_the_interpreter_and_the_host_bring_is_not_missing(
    venv: Path, tmp_path: Path, name: str
) -> None:
    assert missing(venv, tmp_path, "vllm", "vllm/cumem.so", name) is None


def test_a_library_in_a_directory_of_the_loaders_is_there(venv: Path, tmp_path: Path) -> None:
    assert missing(venv, tmp_path, "vllm", "vllm/_C.so", "libnvrtc.so.13") is not None
    root = tmp_path / "root"
    (root / "etc/ld.so.conf.d").mkdir(parents=True)
    (root / "etc/ld.so.conf.d/cuda.conf").write_text("# CUDA\n/opt/cuda/lib\n")
    (root / "opt/cuda/lib").mkdir(parents=True)
    (root / "opt/cuda/lib/libnvrtc.so.13").touch()
    assert "library-missing" not in look(venv)


def test_of_variants_for_several_releases_one_that_loads_is_enough(venv: Path, tmp_path: Path) -> None:
    four = library(tmp_path, "libcodec_core4.so", "libavcodec.so.58")
    install(venv, tmp_path, "torchcodec", "0.9", {"torchcodec/libcodec_core4.so": four})
    assert look(venv)["library-missing"].weight == "note"
    seven = library(tmp_path, "libcodec_core7.so")
    (Venv(venv).sites[0] / "torchcodec/libcodec_core7.so").write_bytes(seven)
    assert look(venv) == {}


def test_a_venv_that_sees_the_systems_packages_is_not_judged(venv: Path, tmp_path: Path) -> None:
    assert missing(venv, tmp_path, "vllm", "vllm/_C.so", "libtorch.so") is not None
    settings = venv / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace("packages = false", "packages = true"))
    assert "library-missing" not in look(venv)


def test_what_a_cpu_torch_lacks_is_told_once(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "torch", "2.10.0", torch("None", library=False))
    install(venv, tmp_path, "vllm", "0.19", {"vllm/_C.so": library(tmp_path, "_C.so", "libtorch_cuda.so")})
    assert set(look(venv)) == {"torch-cpu"}


def extension(venv: Path, tmp_path: Path, version: str, requires: list[str]) -> Finding | None:
    """An extension of torch's, beside torch 2.13.0."""
    files = {**torch("'13.0'"), "torch/lib/libtorch.so": b""}
    install(venv, tmp_path, "torch", "2.13.0", files)
    made = {"ext/_C.so": library(tmp_path, "_C.so", "libtorch.so")}
    install(venv, tmp_path, "ext", version, made, requires)
    return look(venv).get("torch-abi")


@pytest.mark.parametrize(
    ("version", "requires"),
    [("1.0", ["torch==2.9.0"]), ("1.0", ["numpy", "torch (==2.9.1)"]), ("1.0+cu130torch2.9", []), ("1.0+pt2.9", [])],
)
def test_an_extension_of_another_torch_is_found(venv: Path, tmp_path: Path, version: str, requires: list[str]) -> None:
    finding = extension(venv, tmp_path, version, requires)
    assert finding is not None
    assert "is built for torch 2.9" in finding.saw
    assert "torch 2.13.0 is installed" in finding.saw


@pytest.mark.parametrize(
    ("version", "requires"),
    [
        ("1.0", ["torch==2.13.0"]),
        ("1.0", ["torch>=2.9"]),
        ("1.0", []),
        ("1.0+cu130", ["torch==2.9.0; extra == 'old'"]),
        ("1.0+cu130torch2.13", []),
    ],
)
def test_an_extension_of_this_torch_or_of_any_is_not(
    venv: Path, tmp_path: Path, version: str, requires: list[str]
) -> None:
    assert extension(venv, tmp_path, version, requires) is None


def binary(tmp_path: Path, number: int | None = None) -> bytes:
    """A library of this machine, or with another e_machine."""
    data = bytearray(library(tmp_path, "x.so"))
    if number:
        struct.pack_into("<H", data, 18, number)
    return bytes(data)


def test_a_bitsandbytes_for_another_processor_or_cuda_is_found(venv: Path, tmp_path: Path) -> None:
    other = 183 if elf.machine_of(Path("/proc/self/exe")) == "x86_64" else 62
    place = "bitsandbytes/libbitsandbytes_cuda"
    install(venv, tmp_path, "torch", "2.13.0", torch("'13.0'"))
    install(venv, tmp_path, "bitsandbytes", "0.45", {f"{place}130.so": binary(tmp_path, other)})
    assert "has no library for" in look(venv)["bitsandbytes"].saw
    install(venv, tmp_path, "bitsandbytes", "0.46", {f"{place}128.so": binary(tmp_path)})
    assert "has no libbitsandbytes_cuda130.so" in look(venv)["bitsandbytes"].saw
    install(venv, tmp_path, "bitsandbytes", "0.48", {f"{place}130.so": binary(tmp_path)})
    assert look(venv) == {}


def test_a_library_that_is_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.so")
    assert elf.machine_of(tmp_path / "x.so") is None


def test_a_cudnn_of_the_host_in_the_path_of_libraries_is_found(venv: Path, tmp_path: Path) -> None:
    install(venv, tmp_path, "nvidia-cudnn-cu13", "9.1", {"nvidia/cudnn/lib/libcudnn.so.9": b""})
    own = Venv(venv).sites[0] / "nvidia/cudnn/lib"
    host = tmp_path / "cudnn"
    host.mkdir()
    assert look(venv, {"LD_LIBRARY_PATH": f"{host}:{own}"}) == {}
    (host / "libcudnn.so.9").touch()
    assert look(venv, {"LD_LIBRARY_PATH": f"/usr/lib:{host}"})["cudnn-of-host"].where == f"{host}/libcudnn.so.9"


CU128 = '[[tool.uv.index]]\nname = "old"\nurl = "https://download.pytorch.org/whl/cu128"\n'
EXPLICIT = f"{CU128}explicit = true\n[tool.uv.sources]\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pyproject.toml", CU128),
        ("pyproject.toml", EXPLICIT + 'torch = {index = "old"}\n'),
        ("pyproject.toml", EXPLICIT + "torch = [{index = 'old', marker = \"sys_platform == 'linux'\"}]\n"),
        ("pyproject.toml", '[project]\ndependencies = ["torch==2.5.1+cu121"]\n'),
        ("pyproject.toml", '[tool.uv]\nextra-index-url = ["https://download.pytorch.org/whl/cu118"]\n'),
        ("uv.toml", CU128.replace("tool.uv.", "")),
        ("requirements.txt", "numpy\n--extra-index-url https://download.pytorch.org/whl/cu124\ntorch\n"),
        ("requirements-gpu.txt", "torch @ https://x.org/whl/cu126/torch-2.7-cp312-linux_x86_64.whl\n"),
    ],
)
def test_packages_of_cuda_12_that_a_spark_would_get_are_found(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (finding,) = project.look(tmp_path)
    assert finding.id == "cuda-12-index"
    path, number = finding.where.rsplit(":", 1)
    assert "cu1" in Path(path).read_text().splitlines()[int(number) - 1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pyproject.toml", CU128.replace("cu128", "cu130")),
        ("pyproject.toml", EXPLICIT),
        ("pyproject.toml", EXPLICIT + "torch = {index = 'old', marker = \"platform_machine == 'x86_64'\"}\n"),
        ("pyproject.toml", EXPLICIT + 'torch = [{index = "old", group = "cuda12"}]\n'),
        ("pyproject.toml", "this is [no TOML /cu121"),
        ("pyproject.toml", 'tool = 5\nproject = ["x"]\n'),
        ("requirements.txt", "# --index-url https://download.pytorch.org/whl/cu124\ncupy-cuda12x\n"),
        ("requirements.txt", "torch==2.5.1+cu121; platform_machine == 'x86_64'\n"),
        ("notes.txt", "--index-url https://download.pytorch.org/whl/cu124\n"),
    ],
)
def test_packages_of_cuda_12_for_others_are_not(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert list(project.look(tmp_path)) == []
