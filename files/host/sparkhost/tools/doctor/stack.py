"""What is wrong with a virtual environment on a host that has CUDA 13 and a GB10."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sparkhost.base.elf import machine_of
from sparkhost.tools.doctor import missing, ptxas
from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.venv import Distribution, Venv, text_of

# Names may be mangled by auditwheel: libcudart.faf08d9a.so.12, libcudart-faf08d9a.so.12.4.
CUDART_12 = re.compile(r"libcudart(?:[.-][0-9a-f]{6,})?\.so\.12(?:\.[\d.]+)?")
# Of these a CUDA 12 build is a mistake on a Spark. Others, such as cupy-cuda12x, look for CUDA when they are used.
STACK = re.compile(r"(?:torch|vllm|triton|pytorch-triton|xformers|flash-attn|deepspeed|bitsandbytes)[a-z0-9-]*")
FLASH = ("flash-attn", "flash-attn-3", "vllm-flash-attn")
CUDA = re.compile(r"""^cuda(?:\s*:[^=]*)?\s*=\s*(None|['"][^'"]*['"])""", re.MULTILINE)
REINSTALL = "reinstall it from PyPI's cu130 builds: torch >= 2.11 and vllm >= 0.20 on aarch64"


def look(venv: Venv, environment: Mapping[str, str], root: Path = Path("/")) -> Iterator[Finding]:
    """Every trouble of a venv. `environment`: of the process that uses it; `root`: where the host's libraries are."""
    yield from cudart(venv)
    yield from flash(venv)
    of_torch = list(torch(venv))
    yield from of_torch
    yield from missing.look(venv, environment, bool(of_torch), root)
    yield from missing.other_torch(venv)
    yield from bitsandbytes(venv, os.uname().machine)
    yield from cudnn(venv, environment)
    yield from ptxas.look(venv, environment)
    yield from mixed(venv)


def cudart(venv: Venv) -> Iterator[Finding]:
    """Libraries that ask for CUDA 12's runtime: one finding a distribution, with the first file."""
    found: dict[str, tuple[Distribution | None, list[tuple[Path, str]]]] = {}
    brought = any(CUDART_12.fullmatch(name) for name in venv.library_names)
    for path, names in venv.needs.items():
        wanted = next((name for name in names if CUDART_12.fullmatch(name)), None)
        if wanted and not CUDART_12.fullmatch(path.name):
            owner = venv.owner(path)
            found.setdefault(str(owner), (owner, []))[1].append((path, wanted))
    for owner, files in found.values():
        path, wanted = files[0]
        more = f", as do {len(files) - 1} more of it" if len(files) > 1 else ""
        in_stack = owner is None or STACK.fullmatch(owner.name) is not None
        missing = "no distribution of this venv brings it" if not brought else "a distribution of this venv brings it"
        yield Finding(
            "cudart-12",
            "broken" if in_stack and not brought else "warning",
            str(path),
            f"{owner or 'a file of no distribution'} in {venv.path} needs {wanted}{more}; {missing}",
            "built for CUDA 12; a Spark has CUDA 13, so its import ends with "
            '"libcudart.so.12: cannot open shared object file"',
            f"uv pip uninstall {owner.name}, then {REINSTALL}" if owner else "remove the file, or what put it there",
        )


def flash(venv: Venv) -> Iterator[Finding]:
    """The upstream flash-attn. The copy that vLLM bundles (vllm/vllm_flash_attn) is fine."""
    named = [venv.distributions[name] for name in FLASH if name in venv.distributions]
    modules = [site / "flash_attn" for site in venv.sites if (site / "flash_attn").is_dir()]
    owned = {distribution.info.parent / "flash_attn" for distribution in named}
    places = [(str(item.info.parent), str(item), f"uv pip uninstall {item.name}") for item in named]
    places += [(str(path), "a top-level flash_attn", f"remove {path}") for path in modules if path not in owned]
    for where, saw, fix in places:
        yield Finding(
            "flash-attn",
            "broken",
            where,
            f"{saw} is installed in {venv.path}",
            "its wheels are built for CUDA 12, transformers tries it as soon as it is there, and PyTorch's own "
            "attention (SDPA) is reported to be faster on a GB10",
            f'{fix}; in code: attn_implementation="sdpa"',
        )


def cuda_of(torch: Distribution) -> str | None:
    """What torch/version.py says of CUDA: "13.0", "None" for a CPU build; None where it says nothing."""
    match = CUDA.search(text_of(torch.info.parent / "torch" / "version.py", 1 << 16))
    return match[1].strip("'\"") if match else None


def torch(venv: Venv) -> Iterator[Finding]:
    """A CPU or CUDA 12 build of torch. The distribution's version does not tell: PyPI's has no local part."""
    found = venv.has("torch")
    if found is None:
        return
    where = found.info.parent / "torch" / "version.py"
    cuda = cuda_of(found)
    library = (found.info.parent / "torch" / "lib" / "libtorch_cuda.so").exists()
    if cuda == "None" or (cuda is None and not library):
        yield Finding(
            "torch-cpu",
            "broken",
            str(where),
            f"{found} in {venv.path} is built without CUDA",
            "PyPI's aarch64 torch is the CPU build up to 2.10; vllm 0.13 to 0.19 pin such a version, so installing "
            "vllm replaces a CUDA build by it",
            "install torch and vllm in one resolution: torch >= 2.11 from PyPI, or 2.9.0+cu130 from the cu130 index",
        )
    elif cuda is not None and cuda.startswith("12."):
        yield Finding(
            "torch-cuda-12",
            "broken",
            str(where),
            f"{found} in {venv.path} is built for CUDA {cuda}",
            "a GB10 (sm_121) is supported since CUDA 13.0",
            REINSTALL,
        )
    elif not library:
        yield Finding(
            "torch-incomplete",
            "broken",
            str(where),
            f"{found} in {venv.path} says CUDA {cuda}, but torch/lib/libtorch_cuda.so is missing",
            "two builds were installed over each other",
            "uv pip install --reinstall-package torch torch, from the same lock or index as before",
        )


def bitsandbytes(venv: Venv, machine: str) -> Iterator[Finding]:
    """It has a library for each release of CUDA, named by torch's (130 for 13.0), and wheels for each processor."""
    found, of_torch = venv.has("bitsandbytes"), venv.has("torch")
    if found is None:
        return
    directory = found.info.parent / "bitsandbytes"
    fitting = [path for path in sorted(directory.glob("libbitsandbytes_*.so")) if machine_of(path) == machine]
    cuda = cuda_of(of_torch) if of_torch else None
    number = re.match(r"(\d+)\.(\d+)", cuda or "")
    wanted = f"libbitsandbytes_cuda{number[1]}{number[2]}.so" if number else None
    if not fitting:
        saw = f"{found} in {venv.path} has no library for {machine}"
    elif wanted and wanted not in {path.name for path in fitting}:
        saw = f"{found} in {venv.path} has no {wanted}, which it looks for with a torch of CUDA {cuda}"
    else:
        return
    yield Finding(
        "bitsandbytes",
        "broken",
        str(directory),
        saw,
        "8-bit optimizers and 4-bit weights fail as soon as they are used",
        "a release with wheels for aarch64 and CUDA 13: uv pip install -U 'bitsandbytes>=0.48'",
    )


def cudnn(venv: Venv, environment: Mapping[str, str]) -> Iterator[Finding]:
    """A cuDNN of the host that the loader may find before the one that torch was built with."""
    name = next((name for name in sorted(venv.library_names) if re.fullmatch(r"libcudnn\.so\.\d+", name)), None)
    for word in environment.get("LD_LIBRARY_PATH", "").split(":") if name else ():
        place = Path(word or ".")
        if name and (place / name).is_file() and not place.resolve().is_relative_to(venv.path.resolve()):
            yield Finding(
                "cudnn-of-host",
                "note",
                str(place / name),
                f"LD_LIBRARY_PATH names {place}, which has a {name} of its own beside that of {venv.path}",
                "torch's own wheels look beside themselves first (DT_RPATH), other builds here: then it is "
                '"cuDNN version incompatibility", or a crash in a convolution',
                "take that directory out of LD_LIBRARY_PATH: wheels find their own libraries without it",
            )
            return


def mixed(venv: Venv) -> Iterator[Finding]:
    """CUDA libraries of two major versions. `-cu12` in a name proves nothing about one alone."""
    runtimes = {
        major: item
        for major in ("12", "13")
        for item in venv.distributions.values()
        if item.name in (f"nvidia-cuda-runtime-cu{major}", "nvidia-cuda-runtime")
        and item.version.startswith(f"{major}.")
    }
    if len(runtimes) == 2:
        yield Finding(
            "cuda-mixed",
            "warning",
            str(runtimes["12"].info),
            f"{runtimes['12']} beside {runtimes['13']} in {venv.path}",
            "one process that loads both has two CUDA runtimes with states of their own",
            "make the venv anew from one lock",
        )
