"""The steps of a build that root does: what was built becomes root's, is looked at, and is switched to."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sparkhost.base import bounded
from sparkhost.base.files import Link, make_directories, write_atomic
from sparkhost.base.installed import put_in_place
from sparkhost.base.resource import Failed
from sparkhost.stack import build as stack_build
from sparkhost.stack.rules import must_be_cuda_13
from sparkhost.stack.verify import distributions, look, site_packages, walk
from sparkhost.vllm_source import record as vllm_source_record
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.record import keep_only
from sparkhost.vllm_source.shell import Shell, StepFailed
from sparkhost.vllm_source.steps import Build, interpreter, layer_of, shadowing, stack_versions
from sparkhost.vllm_source.store import CURRENT, LAYER, home

COMPILE_SECONDS = 900
SITE = re.compile(r"lib/python3\.[0-9]+/site-packages/.+")
SCRIPT = re.compile(r"bin/[A-Za-z0-9._+-]+")
IMPORT = """\
import importlib.metadata, json, sys
import vllm
torch = None
try:
    import torch
except ModuleNotFoundError:
    pass
print(json.dumps({
    "vllm": vllm.__file__, "version": importlib.metadata.version("vllm"), "says": str(getattr(vllm, "__version__", "")),
    "torch": getattr(torch, "__file__", None),
}))
"""


def installed(build: Build, shell: Shell) -> str:
    """The image as root's own, writable by nobody else, and looked at; nothing of it has run as root."""
    target = home(build.key)
    cache = target.with_name(f".{build.key}.cache")
    make_directories(vllm_source_store.STORE)
    shutil.rmtree(cache, ignore_errors=True)
    try:
        with put_in_place(target) as new:
            count = fill(build, shell, new, cache)
    except Failed as failure:
        raise StepFailed(str(failure)) from failure
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return f"{count} files, {target}"


def fill(build: Build, shell: Shell, new: Path, cache: Path) -> int:
    """Makes the environment, looks at it, and notes it; how many files it has."""
    stack_build.run(build.uv, "venv", "--relocatable", "--python", str(interpreter(build)), str(new), cache=cache)
    (new / ".lock").unlink(missing_ok=True)  # uv's, which everybody may write
    count = copied(build, shell, new)
    site = site_packages(new)
    write_atomic(site / LAYER, layer_of(build.release).encode(), 0o644)
    look_at(build, new)
    byte_compile(build, site)
    versions = {one.name: one.version for one in distributions(site)}
    vllm_source_store.write_manifest(new, build.key, build.request.commit, build.release, versions)
    os.sync()
    return count


def copied(build: Build, shell: Shell, new: Path) -> int:
    """Copies the image's packages and scripts. tar reads them as the build's account: root opens no path of its.

    Raises:
        StepFailed: something that is neither file nor directory, or lies elsewhere.
    """
    words = ("tar", "-C", str(build.image), "--create", "--hard-dereference", "lib", "bin")
    count = 0
    with shell.started(*words, cwd=build.work, stdout=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    count += put(archive, member, new)
        except (tarfile.TarError, EOFError) as error:
            raise StepFailed(f"what was built cannot be read: {error}") from error
    if process.returncode:
        raise StepFailed(f"tar: exit status {process.returncode}", process.returncode)
    return count


def put(archive: tarfile.TarFile, member: tarfile.TarInfo, new: Path) -> int:
    """One member of the image, with root's owner and mode; how many files that was."""
    name = member.name
    target = new / name
    parts = name.split("/")
    if "__pycache__" in parts or name.endswith(f"/{LAYER}") or member.isdir():
        return 0  # made here, from the source
    if not (SITE.fullmatch(name) or SCRIPT.fullmatch(name)) or {"", ".", ".."} & set(parts):
        raise StepFailed(f"{name!r} in what was built is no file of a package")
    if os.path.lexists(target):  # what `uv venv` makes
        return 0
    stream: IO[bytes] | None = archive.extractfile(member) if member.isreg() else None
    if stream is None:
        raise StepFailed(f"{name!r} in what was built is a link or no regular file")
    make_directories(target.parent)
    with target.open("xb") as out:
        shutil.copyfileobj(stream, out)
        os.fchmod(out.fileno(), 0o755 if member.mode & 0o111 else 0o644)
    return 1


def look_at(build: Build, new: Path) -> None:
    """Raises StepFailed where it is not fit for this host: by its files, before anybody can import it."""
    site = site_packages(new)
    wrong = [f"{what} is the stack's to have" for what in shadowing(new, set(stack_versions(build)))]
    libraries = [path for path in walk(site) if must_be_cuda_13(path)]
    wrong += [problem for path in libraries if (problem := look(site, path))]
    if not any(one.name == "vllm" for one in distributions(site)):
        wrong.append("vllm is not in it")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise StepFailed(f"{'; '.join(wrong[:3])}{more}")


def byte_compile(build: Build, site: Path) -> None:
    """Its bytecode, since nobody else can write it there. Compiling runs nothing of it."""
    words = [str(interpreter(build)), "-I", "-S", "-m", "compileall", "-q", "-j", "0", str(site)]
    try:
        # Exit status 1: a file that is for another Python, as some packages have.
        bounded.call(words, seconds=COMPILE_SECONDS)
    except Failed as error:
        raise StepFailed(f"the bytecode was not made ({error}): deploy again") from error


def imported(build: Build, shell: Shell) -> str:
    """vLLM imports from where it is, as the commit that was asked for, with the stack's torch."""
    root = home(build.key)
    lines = shell.output(root / "bin" / "python", "-I", "-c", IMPORT).strip().splitlines()
    try:
        told = json.loads(lines[-1])
        file, version, torch = str(told["vllm"]), str(told["version"]), told["torch"]
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise StepFailed("the import of vllm has said something else than where it is") from error
    if not file.startswith(f"{root}/"):
        raise StepFailed(f"import vllm takes {file}, not what was built")
    named = re.search(r"[+.]g([0-9a-f]{7,40})\b", version)
    if named and not build.request.commit.startswith(named[1]):
        raise StepFailed(f"vllm says that it is {version}: not of the commit {build.request.commit}")
    if "torch" in stack_versions(build) and not str(torch).startswith(f"{build.stack}/"):
        raise StepFailed(f"import torch takes {torch}, not the stack's")
    return f"vllm {version}"


def switched(build: Build, shell: Shell) -> str:
    """`current` leads to it; builds that nobody uses go, and what it was made of."""
    Link(str(vllm_source_store.STORE / CURRENT), build.key).apply()
    removed = list(unused(build.key))
    for key in removed:
        remove(key)
    for path in (vllm_source_record.STATE / "work").iterdir():
        shutil.rmtree(path)
    keep_only([build.key, *vllm_source_store.builds()])
    return f"in use; removed {', '.join(removed)}" if removed else "in use"


def unused(kept: str) -> Iterator[str]:
    """Builds other than `kept` that no process uses."""
    for key in vllm_source_store.builds():
        if key != kept and not any(vllm_source_store.users(key)):
            yield key


def remove(key: str) -> None:
    """Under another name first: nothing starts from what is half gone."""
    path = home(key)
    gone = path.with_name(f".{key}.gone")
    path.rename(gone)
    shutil.rmtree(gone)


def leftovers() -> list[Path]:
    """What a build that was killed has left."""
    store = vllm_source_store.STORE
    return sorted(path for path in store.glob(".*") if path.is_dir()) if store.is_dir() else []
