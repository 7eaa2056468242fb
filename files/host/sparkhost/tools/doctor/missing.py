"""Libraries that a venv's files want and nothing brings, and extensions of another torch.

A name that is wanted (DT_NEEDED) is looked for among all libraries of the venv, wherever they lie:
wheels reach each other's by RPATH `$ORIGIN/…`, and torch loads NVIDIA's itself, so the place proves
nothing. Then where ld.so(8) looks. Files that differ by digits only are variants, one for each
release of CUDA, FFmpeg or GPU: one that loads is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sparkhost.base.elf import wants_cuda_12
from sparkhost.tools.doctor.finding import Finding
from sparkhost.tools.doctor.ptxas import release
from sparkhost.tools.doctor.venv import Distribution, Venv, text_of

# The driver's and the interpreter's: a host that runs anything has them, a build machine has not.
OF_HOST = re.compile(r"lib(?:cuda|nvcuvid|nvidia-[\w-]+|nvoptix|python[\d.]+t?|GLX?_\w+)\.so")
# Without these torch, or what builds on it, does not load. Others (MPI, InfiniBand, FFmpeg) are of
# parts that are loaded when somebody asks for them.
OF_STACK = re.compile(r"lib(?:cu\w+|nv\w+|nccl\w*|torch\w*|c10\w*|shm)(?:[.-][0-9a-f]{4,40})?\.so")
OF_TORCH = re.compile(r"lib(?:torch\w*|c10\w*)\.so")
DIRECTORIES = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib")
PIN = re.compile(r"^Requires-Dist:\s*torch\s*\(?\s*==\s*([\d.]+)[^;\n]*$", re.MULTILINE)
LOCAL = re.compile(r"\+.*?(?:torch|pt)\.?(\d+\.\d+)")
LARGEST = 1 << 18


def configured(root: Path) -> Iterator[str]:
    """The directories of /etc/ld.so.conf and of what it includes (ldconfig(8))."""
    for path in [root / "etc/ld.so.conf", *sorted((root / "etc/ld.so.conf.d").glob("*.conf"))]:
        for line in text_of(path, LARGEST).splitlines():
            word = line.split("#", 1)[0].strip()
            if word.startswith("/"):
                yield word[1:]


def on_host(venv: Venv, environment: Mapping[str, str], root: Path) -> set[str]:
    """Names of all libraries that the loader finds outside of a venv's packages."""
    home = re.search(r"^home\s*=\s*(.+)$", text_of(venv.path / "pyvenv.cfg", LARGEST), re.MULTILINE)
    places = [root / name for name in (*DIRECTORIES, *configured(root))]
    places += [*(root / "usr/lib").glob("*-linux-gnu*"), *(root / "lib").glob("*-linux-gnu*"), venv.path / "lib"]
    places += [Path(word) for word in environment.get("LD_LIBRARY_PATH", "").split(":") if word]
    if home:
        places.append(Path(home[1].strip()).parent / "lib")
    found: set[str] = set()
    for place in places:
        try:
            found.update(path.name for path in place.iterdir() if ".so" in path.name)
        except OSError:
            continue
    return found


def sees_others(venv: Venv) -> bool:
    """Whether it also has its interpreter's packages, which are not looked at."""
    text = text_of(venv.path / "pyvenv.cfg", LARGEST)
    return re.search(r"^include-system-site-packages\s*=\s*true", text, re.MULTILINE | re.IGNORECASE) is not None


def family(path: Path, venv: Venv) -> str:
    """The same for files that differ by digits only."""
    site = next((site for site in venv.sites if path.is_relative_to(site)), path.parent)
    return re.sub(r"\d+", "", str(path.relative_to(site)))


def look(venv: Venv, environment: Mapping[str, str], torch_is_wrong: bool, root: Path = Path("/")) -> Iterator[Finding]:
    """One finding a distribution, with its first file.

    `torch_is_wrong`: what torch lacks is told already.
    """
    if sees_others(venv):
        return
    brought = venv.library_names | on_host(venv, environment, root)
    lacks: dict[Path, list[str]] = {}
    whole: set[str] = set()
    for path, names in venv.needs.items():
        wanted = [name for name in names if name not in brought and not OF_HOST.match(name)]
        if not wanted:
            whole.add(family(path, venv))
        # CUDA 12's runtime has a finding of its own.
        if wanted := [name for name in wanted if not wants_cuda_12([name]) or "cudart" not in name]:
            lacks[path] = wanted
    told = set()
    for path, wanted in lacks.items():
        owner = venv.owner(path)
        names = [name for name in wanted if not (torch_is_wrong and OF_TORCH.match(name))]
        if not names or str(owner) in told or family(path, venv) in whole:
            continue
        told.add(str(owner))
        yield finding(venv, path, owner, names)


def finding(venv: Venv, path: Path, owner: Distribution | None, names: list[str]) -> Finding:
    """`names`: what it lacks."""
    stack = [name for name in names if OF_STACK.match(name)]
    if stack and all(OF_TORCH.match(name) for name in stack):
        fix = "install it and torch in one resolution"
    elif stack and wants_cuda_12(stack):
        fix = "it is built for CUDA 12: reinstall it as a cu130 build, in one resolution with torch"
    elif stack:
        fix = "uv pip install --reinstall torch, without --no-deps: its nvidia-* packages bring CUDA's libraries"
    else:
        fix = "nothing, as long as nobody uses that part of it; else install the system's package that has the library"
    return Finding(
        "library-missing",
        "broken" if stack else "note",
        str(path),
        f"{owner or 'a file of no distribution'} in {venv.path} needs {', '.join(names[:4])}, "
        "which neither this venv nor the host has",
        'loading it ends with "cannot open shared object file"',
        fix,
    )


def pinned(item: Distribution) -> str | None:
    """The torch that it was built with, by its own version (+cu130torch2.9) or the one it pins."""
    if match := LOCAL.search(item.version):
        return match[1]
    match = PIN.search(text_of(item.info / "METADATA", LARGEST))
    return match[1] if match else None


def other_torch(venv: Venv) -> Iterator[Finding]:
    """Distributions whose libraries want torch's, and were built with another release of it."""
    torch = venv.has("torch")
    if torch is None:
        return
    told = {torch.name}
    for path, names in venv.needs.items():
        owner = venv.owner(path)
        if owner is None or owner.name in told or not any(OF_TORCH.match(name) for name in names):
            continue
        told.add(owner.name)
        wanted = pinned(owner)
        if wanted and release(wanted) != release(torch.version):
            yield Finding(
                "torch-abi",
                "broken",
                str(path),
                f"{owner} in {venv.path} is built for torch {wanted}, and {torch} is installed",
                'C++ interfaces of torch change with each release: "undefined symbol" when it is imported, or a crash',
                f"install both in one resolution: uv pip install torch=={wanted} {owner.name}, or its release for "
                f"torch {torch.version}",
            )
