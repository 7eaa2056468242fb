"""Where stacks lie on a host: one directory a release, what each is made of, who uses it, which may go.

/opt/sparkfleet/stacks/RELEASE is a virtual environment, `current` a link to one of them. In it, sparkfleet.json says
what it is, and SHA256SUMS has every file, for `sha256sum -c`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sparkhost.base import bounded, installed
from sparkhost.base.files import write_atomic
from sparkhost.base.resource import Failed
from sparkhost.stack.hashes import ARROW, hashes
from sparkhost.stack.verify import walk, writable

STORE = Path("/opt/sparkfleet/stacks")
CURRENT = installed.CURRENT
MANIFEST = "sparkfleet.json"
SUMS = "SHA256SUMS"
SMOKE = Path("/var/lib/sparkfleet/smoke")
"""Results of `spark-stack smoke`, by release."""
PROC = Path("/proc")
# Bytes. A stack has some 60,000 files, of about 130 bytes each there.
LARGEST_SUMS = 64 * 2**20


class Sealed(Protocol):
    """What a manifest of this store, or of another one of the kind, says of its files."""

    @property
    def sums(self) -> str: ...

    @property
    def links(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Manifest:
    """What sparkfleet.json says of a release."""

    release: str
    digest: str
    """Of the lock that it was made of."""
    wheels: dict[str, str]
    """Distribution → version."""
    fingerprint: str
    """Of what stat(2) says of every file; ctime cannot be set by hand, so the same is taken for unchanged."""
    sums: str
    """SHA-256 of SHA256SUMS."""
    links: dict[str, str]
    """Every symbolic link: path → where it leads."""


def home(release: str) -> Path:
    return STORE / release


def releases() -> list[str]:
    """All that are installed, whole or damaged, the newest first."""
    return installed.releases(STORE)


def current() -> str:
    """The release that `current` leads to; "" where there is none."""
    return installed.current(STORE)


def read_manifest(root: Path) -> Manifest | None:
    """What a release is; None where it says nothing that can be understood: it was never finished, or is damaged."""
    try:
        values = json.loads(bounded.read_text(root / MANIFEST))
        values.pop("_", None)
        return Manifest(**values)
    except (OSError, ValueError, TypeError, AttributeError, Failed, RecursionError):
        return None


def write_manifest(root: Path, release: str, digest: str, wheels: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Notes a release that was verified. `found`: path → SHA-256 of every file."""
    sums, links = write_sums(root, found)
    note(root, Manifest(release, digest, dict(wheels), fingerprint(root), sums, links))


def write_sums(root: Path, found: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Writes SHA256SUMS of these files. Its own SHA-256, and the links among them: path → where it leads."""
    lines = "".join(f"{value}  {path}\n" for path, value in sorted(found.items()) if not value.startswith(ARROW))
    write_atomic(root / SUMS, lines.encode("utf-8", "surrogateescape"), 0o644)
    sums = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    links = {path: value.removeprefix(ARROW) for path, value in sorted(found.items()) if value.startswith(ARROW)}
    return sums, links


def note(root: Path, manifest: Sealed, measure: str = "stack") -> None:
    values = {"_": f"managed by sparkfleet (measure: {measure})", **vars(manifest)}
    write_atomic(root / MANIFEST, (json.dumps(values, indent=1) + "\n").encode(), 0o644)


def fingerprint(root: Path) -> str:
    """SHA-256 over what stat(2) says of everything below a release, except for sparkfleet.json itself."""
    lines = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path, status = f"{folder}{entry.name}", entry.stat(follow_symlinks=False)
                if path == MANIFEST:
                    continue
                what = f"{path}\0{status.st_mode:o}\0{status.st_uid}"
                if stat.S_ISDIR(status.st_mode):
                    pending.append(f"{path}/")  # its times change with what is in it, which is looked at
                else:
                    what += f"\0{status.st_ino}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
                lines.append(what)
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def sums_of(root: Path, manifest: Sealed) -> dict[str, str] | None:
    """Path → SHA-256 as SHA256SUMS has it; None where that file is not the one of the manifest."""
    try:
        data = bounded.read(root / SUMS, LARGEST_SUMS)
    except (Failed, OSError):
        return None
    if hashlib.sha256(data).hexdigest() != manifest.sums:
        return None
    rows = (row.partition("  ") for row in data.decode("utf-8", "surrogateescape").splitlines())
    return {path: value for value, _, path in rows}


def changed(root: Path, manifest: Sealed) -> list[str]:
    """Every file that is not as it was when the release was verified, by content: all of it is read.

    Times and inodes may differ without harm, after a backup was played back; who can write may not.
    """
    sums = sums_of(root, manifest)
    if sums is None:
        return [f"{SUMS}: was changed"]
    known = {**sums, **{path: ARROW + target for path, target in manifest.links.items()}}
    paths = [path for path in walk(root) if path not in (MANIFEST, SUMS)]
    found = hashes(root, paths)
    wrong = [f"{path}: is missing" for path in sorted(known.keys() - found.keys())]
    wrong += [f"{path}: was added" for path in sorted(found.keys() - known.keys())]
    wrong += [f"{path}: was changed" for path in sorted(found.keys() & known.keys()) if found[path] != known[path]]
    return [*wrong, *writable(root, paths)]


def users(release: str) -> Iterator[int]:
    """Processes that use a release: started from it, with a library of it, or in its environment.

    The program itself does not tell: it is the distribution's Python. May be called as root only.
    """
    return users_of(home(release))


def users_of(root: Path) -> Iterator[int]:
    """The same of any environment, by its directory. One that cannot be looked at counts: what it uses stays.

    A child reads (`bounded.try_each`): what a process of somebody's says of itself may be long in coming. Arguments and
    environment on a file system that does not answer hold nobody up: the kernel reads them from anonymous memory only
    (CVE-2018-1120; tried on 6.18 with a page of them mapped to such a file). Of maps no kernel says so.
    """
    mark = f"{root}/".encode()
    bare = str(root).encode()

    def uses(process: Path) -> bool:
        try:
            return any(
                mark in data or bare in data.split(b"\0") or b"VIRTUAL_ENV=" + bare in data.split(b"\0")
                for data in looks(process)
            )
        except bounded.TooLarge:
            return True

    for process, found in bounded.try_each([path for path in PROC.iterdir() if path.name.isdecimal()], uses):
        if found or (found is None and process.exists()):
            yield int(process.name)


def looks(process: Path) -> Iterator[bytes]:
    for name in ("cmdline", "environ", "maps"):
        try:
            yield bounded.read(process / name)
        except OSError:  # it has ended
            continue
    try:
        yield os.fsencode((process / "cwd").readlink()) + b"/"
    except OSError:
        return


def superfluous(keep: int, wanted: str) -> list[str]:
    """Releases that may go once `wanted` is in use: all but that one and the newest, `keep` in all."""
    others = [release for release in releases() if release != wanted]
    return others[max(0, keep - 1) :]


def leftovers() -> list[Path]:
    """What a build that was killed has left."""
    return sorted(path for path in STORE.glob(".*") if path.is_dir()) if STORE.is_dir() else []
