"""Whether an installed stack is what its lock says, told from its files: neither uv nor metadata are believed.

Every file is hashed once. What no RECORD names, other than what the virtual environment itself is made of, was added by
somebody: a `.pth` file runs code in every Python of the stack.
"""

from __future__ import annotations

import base64
import csv
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from sparkhost.base import bounded
from sparkhost.stack.rules import VERSION, flash_attention, library_problem, must_be_cuda_13, torch_problem

# What `uv venv` makes, relative to the environment; and in its site-packages.
OWN = re.compile(
    r"pyvenv\.cfg|\.gitignore|CACHEDIR\.TAG|lib64"
    r"|bin/(python[0-9.]*|activate[A-Za-z0-9_.]*|deactivate\.bat|pydoc\.bat)"
    r"|lib/python3\.[0-9]+/site-packages/_virtualenv\.(py|pth)"
)
BYTECODE = re.compile(r"(.*/)?__pycache__/[^/]+\.pyc")
IsKnown = Callable[[str, str], bool]
"""Whether a file (path below the environment, SHA-256) is right although no RECORD says so. Published wheels have wrong
RECORDs: PyNvVideoCodec 2.0.4 (aarch64) was changed after its RECORD was made, and no installer looks."""
FLASH_DISTRIBUTION = re.compile(r"flash-attn(-[34])?")


@dataclass(frozen=True)
class Distribution:
    """A distribution as its own directory in site-packages says."""

    name: str
    """Normalised (PEP 503)."""
    version: str
    record: Path


def site_packages(root: Path) -> Path:
    """The environment's site-packages. Raises FileNotFoundError where there is not exactly one."""
    found = sorted(root.glob("lib/python3.*/site-packages"))
    if len(found) != 1:
        raise FileNotFoundError(2, "no site-packages", str(root))
    return found[0]


def distributions(site: Path) -> list[Distribution]:
    """Everything that is installed; a directory without a name or version is one of no name."""
    found = []
    for directory in sorted(site.glob("*.dist-info")):
        try:
            text = bounded.read_text(directory / "METADATA")
        except OSError:
            text = ""
        fields = HeaderParser().parsestr(text)
        name = re.sub(r"[-_.]+", "-", fields.get("Name") or directory.name).lower()
        found.append(Distribution(name, plain(fields.get("Version") or ""), directory / "RECORD"))
    return found


def plain(version: str) -> str:
    """A version without zeros in front of its numbers, which file names do not have (PEP 440: 2024.01.05)."""
    return re.sub(r"(?<![0-9a-z])0+(?=[0-9])", "", version.strip().lower())


def walk(root: Path) -> Iterator[str]:
    """Every file and link below a directory, as relative paths; links are not followed."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                else:
                    yield path


def recorded(site: Path, root: Path, found: Sequence[Distribution]) -> tuple[dict[str, set[str]], list[str]]:
    """Path below `root` → SHA-256 (none: of no hash) in every RECORD that names it; and what is wrong with those.

    Two distributions may have a file of one name: then either is right, as the later one has overwritten the other's.
    """
    files: dict[str, set[str]] = {}
    wrong = []
    for distribution in found:
        try:
            with distribution.record.open(newline="", encoding="utf-8") as stream:
                rows = [row for row in csv.reader(stream) if row]
        except (OSError, UnicodeDecodeError, csv.Error):
            wrong.append(f"{distribution.name}: its RECORD cannot be read")
            continue
        for row in rows:
            path = os.path.relpath(os.path.normpath(site / row[0]), root)
            if path.startswith("../"):
                wrong.append(f"{distribution.name}: its RECORD names {row[0]}, outside of the stack")
                continue
            kind, _, value = (row[1] if len(row) > 1 else "").partition("=")
            files.setdefault(path, set()).update([hexadecimal(value)] if kind == "sha256" else [])
    return files, wrong


def hexadecimal(value: str) -> str:
    """RECORD's way to write a hash (PEP 376: base64 without padding) as hex digits; one that cannot be right: "?"."""
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex()
    except ValueError:
        return "?"


def problems(root: Path, wanted: Mapping[str, str], found: Mapping[str, str], is_known: IsKnown) -> list[str]:
    """What is wrong with an environment; none where it is as the lock says.

    `wanted`: distribution → version; `found`: path → SHA-256, of all files there (`hashes`); `is_known`: asked about
    those that no RECORD confirms.
    """
    site = site_packages(root)
    installed = distributions(site)
    files, wrong = recorded(site, root, installed)
    wrong += unlike(installed, wanted)
    wrong += differing(files, found, is_known)
    prefix = f"{site.relative_to(root)}/"
    inside = {path.removeprefix(prefix) for path in found if path.startswith(prefix)}
    wrong += [f"{path}: flash-attn, which wants CUDA 12" for path in sorted(inside) if flash_attention(path)]
    for path in sorted(inside):
        if must_be_cuda_13(path) and (problem := look(site, path)):
            wrong.append(problem)
    if VERSION in inside:
        problem = torch_problem(bounded.read_text(site / VERSION), inside)
        wrong += [problem] if problem else []
    return wrong


def look(site: Path, path: str) -> str:
    with (site / path).open("rb") as stream:
        return library_problem(path, stream)


def unlike(installed: Sequence[Distribution], wanted: Mapping[str, str]) -> Iterator[str]:
    """Where what is installed is not what the lock says."""
    names = [distribution.name for distribution in installed]
    for distribution in installed:
        if FLASH_DISTRIBUTION.fullmatch(distribution.name):
            yield f"{distribution.name} {distribution.version}: wants CUDA 12"
        elif distribution.name not in wanted:
            yield f"{distribution.name} {distribution.version}: is not in the lock"
        elif distribution.version != plain(wanted[distribution.name]):
            yield f"{distribution.name}: is {distribution.version}, the lock has {wanted[distribution.name]}"
    yield from (f"{name}: is installed twice" for name in sorted({n for n in names if names.count(n) > 1}))
    yield from (f"{name} {version}: is missing" for name, version in wanted.items() if name not in names)


def differing(files: Mapping[str, set[str]], found: Mapping[str, str], is_known: IsKnown) -> Iterator[str]:
    """Where files are not as RECORD has them: changed, missing, added."""
    for path in sorted({*files, *found}):
        if path not in found:
            yield f"{path}: is missing"
        elif path not in files:
            if not OWN.fullmatch(path) and not BYTECODE.fullmatch(path) and not is_known(path, found[path]):
                yield f"{path}: was added"
        elif files[path] and found[path] not in files[path] and not is_known(path, found[path]):
            yield f"{path}: was changed"


def writable(root: Path, paths: Sequence[str]) -> Iterator[str]:
    """What others than root can write, or own; folders too."""
    folders = {str(Path(path).parent) for path in paths} | {"."}
    for path in [*sorted(folders), *paths]:
        status = (root / path).lstat()
        if status.st_uid != 0 or (not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022):
            yield f"{path}: can be written by others than root"
