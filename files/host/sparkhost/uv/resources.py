"""uv from its wheel: unpacked aside, checked by hash, in place in one step; and its system configuration."""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import File, digest, make_directories, read_regular, write_atomic
from sparkhost.base.installed import keep_two, put_in_place
from sparkhost.base.resource import Context, Failed, Need, Resource, Step, uploaded

STORE = Path("/opt/sparkfleet/uv")
PROGRAMS = ("uv", "uvx")
MIB = 2**20
# An uncompressed uv and uvx, and the wheel beside them while they are unpacked.
ROOM = 200 * MIB


def store_of(version: str) -> Path:
    return STORE / version


@dataclass(frozen=True)
class UvBinary(Resource):
    """The programs of one release of uv under /opt/sparkfleet/uv/VERSION, owned by root.

    A manifest beside them holds their hashes and what stat(2) said of them. ctime cannot be set by hand, so
    an unchanged stat spares reading 60 MB at each look; anything else is decided by the content.
    """

    kind: ClassVar[str] = "uv_binary"
    version: str
    sha256: dict[str, str]
    """SHA-256 of the release's wheel, by `uname -m`."""

    def may_need(self) -> Sequence[Need]:
        return [Need(wheel, f"uv=={self.version}", machine) for machine, wheel in self.sha256.items()]

    def steps(self, context: Context) -> Iterator[Step]:
        machine = platform.machine()
        if machine not in self.sha256:
            raise Failed(f"uv {self.version} has no hash for {machine}: set uv.sha256.{machine} in the fleet file")
        wheel = self.sha256[machine]
        if reason := why_not(store_of(self.version), wheel):
            need = Need(wheel, f"uv=={self.version}", machine)
            says = f"install uv {self.version} ({reason})"
            yield Step(str(store_of(self.version)), says, partial(self._install, wheel), needs=[need])

    def _install(self, wheel: str) -> None:
        make_directories(STORE)
        free = os.statvfs(STORE).f_bavail * os.statvfs(STORE).f_frsize
        if free < ROOM:
            raise Failed(f"uv needs {ROOM // MIB} MiB on {STORE}, {free // MIB} MiB are free; free some space there")
        with put_in_place(store_of(self.version)) as new:
            new.mkdir(mode=0o755)
            unpack(uploaded(wheel), wheel, new)
        keep_two(STORE, self.version)


def why_not(directory: Path, wheel: str) -> str | None:
    """Why the programs in `directory` are not those of the wheel, or None."""
    manifest = read_regular(directory / "manifest.json")
    if manifest is None:
        return "not installed"
    try:
        known: dict[str, Any] = json.loads(manifest)
        was = [known["wheel"], *(known[key][program] for key in ("stat", "sha256") for program in PROGRAMS)]
    except (ValueError, KeyError, TypeError):
        return "its manifest.json is damaged"
    if was[0] != wheel:
        return "another wheel"
    for program in PROGRAMS:
        path = directory / program
        try:
            status = path.lstat()
        except FileNotFoundError:
            return f"{program} is missing"
        if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != 0o755 or status.st_uid:
            return f"{program} is not a program of root's with mode 0755"
        if fingerprint(status) != known["stat"][program] and digest(path) != known["sha256"][program]:
            return f"{program} was changed"
    return None


def fingerprint(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def unpack(source: Path, wheel: str, target: Path) -> None:
    """Takes uv and uvx out of a wheel into `target`, once the wheel's hash is right, and writes the manifest.

    The wheel is copied first, and it is the copy that is checked: whoever uploaded it can no longer change it.

    Raises:
        Failed: another hash, or a wheel without the programs.
    """
    copy = target / "wheel"
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as stream, copy.open("wb") as out:
        shutil.copyfileobj(stream, out, MIB)
    found = digest(copy)
    if found != wheel:
        raise Failed(f"the wheel of uv has SHA-256 {found}, expected {wheel}: it was not installed")
    manifest: dict[str, Any] = {"wheel": wheel, "sha256": {}, "stat": {}}
    with zipfile.ZipFile(copy) as archive:
        names = {Path(name).name: name for name in archive.namelist() if ".data/scripts/" in name}
        for program in PROGRAMS:
            if program not in names:
                raise Failed(f"the wheel of uv has no program {program}")
            with archive.open(names[program]) as packed, (target / program).open("wb") as out:
                shutil.copyfileobj(packed, out, MIB)
                out.flush()
                os.fchmod(out.fileno(), 0o755)
                os.fsync(out.fileno())
            manifest["sha256"][program] = digest(target / program)
            manifest["stat"][program] = fingerprint((target / program).stat())
    copy.unlink()
    write_atomic(target / "manifest.json", json.dumps(manifest, indent=1).encode() + b"\n", 0o644)


@dataclass(frozen=True)
class UvConfig(File):
    """/etc/uv/uv.toml, tried with the very uv that will read it before it replaces the old one.

    An unknown key stops every uv command of every user ("Failed to parse"), so a mistake must not get there.
    """

    kind: ClassVar[str] = "uv_config"
    version: str = ""

    def write(self) -> None:
        trial = store_of(self.version) / ".uv.toml"
        trial.write_text(self.content)
        try:
            # -n: `cache dir` reads the whole configuration and touches nothing.
            result = bounded.call(
                [str(store_of(self.version) / "uv"), "--config-file", str(trial), "cache", "dir", "-n"],
                seconds=60,
                env={"HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
            )
        finally:
            trial.unlink()
        if result.returncode:
            reason = " ".join(result.stderr.replace(str(trial), self.path).split())
            raise Failed(f"uv.config in the fleet file is not what uv {self.version} takes: {reason[:400]}")
        super().write()


@dataclass(frozen=True)
class NoUv(Resource):
    """No release of uv of ours on the host."""

    kind: ClassVar[str] = "no_uv"

    def steps(self, context: Context) -> Iterator[Step]:
        if STORE.exists():
            yield Step(str(STORE), "remove", self._remove)

    def _remove(self) -> None:
        shutil.rmtree(STORE)
        if not any(STORE.parent.iterdir()):
            STORE.parent.rmdir()
