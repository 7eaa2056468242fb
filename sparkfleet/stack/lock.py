"""A lock: every wheel of a stack for one architecture, by hash. Read, written, and named by its content; no I/O.

The file is a requirements file that pip and uv take as it is, one wheel a line:

    NAME==VERSION --hash=sha256:DIGEST  # FILENAME BYTES
    NAME @ URL --hash=sha256:DIGEST  # FILENAME BYTES

With a URL only where the wheel is not of the default index: for all others the site's own index is asked.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

HEAD = "# managed by sparkfleet: made by `sparkfleet stack lock`; edits are lost.\n"
FACTS = re.compile(r"# profile (\S+), (\S+), CPython (\S+), glibc (\S+)(?:, commit ([0-9a-f]{40}))?")
LINE = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:==(?P<version>\S+)| @ (?P<url>https?://\S+)) "
    r"--hash=sha256:(?P<sha256>[0-9a-f]{64})  # (?P<filename>[A-Za-z0-9._+!-]+\.whl) (?P<size>[1-9][0-9]*)"
)
NAME_LENGTH = 12
"""Hex digits of the content's hash in the name of a release: 48 bits, for the few releases of a fleet."""


class BadLock(Exception):
    """A lock that cannot be read: one line that names file, line and remedy."""


@dataclass(frozen=True)
class Wheel:
    """One wheel of a lock."""

    name: str
    """Normalised (PEP 503)."""
    version: str
    filename: str
    size: int
    """Bytes."""
    sha256: str
    url: str = ""
    """Where it lies; "" where the default index knows it."""

    @property
    def requirement(self) -> str:
        """As pip takes it from wheels in a directory."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Lock:
    """All wheels of a profile for one architecture."""

    profile: str
    machine: str
    """`uname -m`."""
    python: str
    """Such as 3.12."""
    glibc: str
    wheels: tuple[Wheel, ...]
    """By name."""
    commit: str = ""
    """Of vLLM, where the profile is of a commit."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what would be installed: wheels by hash, and the Python that they are for."""
        lines = [f"{self.machine} {self.python}", *(f"{wheel.requirement} {wheel.sha256}" for wheel in self.wheels)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def release(self) -> str:
        """The name of what is installed from it: `current-1a2b3c4d5e6f`."""
        return f"{self.profile}-{self.digest[:NAME_LENGTH]}"

    @property
    def size(self) -> int:
        """Bytes of all wheels."""
        return sum(wheel.size for wheel in self.wheels)

    def wheel(self, name: str) -> Wheel | None:
        """The wheel of a distribution, by its normalised name."""
        return next((wheel for wheel in self.wheels if wheel.name == name), None)

    def text(self) -> str:
        """The file."""
        commit = f", commit {self.commit}" if self.commit else ""
        facts = f"# profile {self.profile}, {self.machine}, CPython {self.python}, glibc {self.glibc}{commit}\n"
        return HEAD + facts + "".join(line(wheel) for wheel in self.wheels)


def line(wheel: Wheel) -> str:
    what = f"{wheel.name} @ {wheel.url}" if wheel.url else wheel.requirement
    return f"{what} --hash=sha256:{wheel.sha256}  # {wheel.filename} {wheel.size}\n"


def parse(text: str, where: str) -> Lock:
    """Reads a lock. `where`: the file's name, for the message.

    Raises:
        BadLock: it is not as `sparkfleet stack lock` writes it: a line without a hash, an sdist, two of one name.
    """
    facts = next((match for row in text.splitlines() if (match := FACTS.fullmatch(row))), None)
    if facts is None:
        raise BadLock(f"{where}: the line `# profile …` is missing: make it anew with `sparkfleet stack lock`")
    wheels: dict[str, Wheel] = {}
    for number, row in enumerate(text.splitlines(), 1):
        if not row.strip() or row.startswith("#"):
            continue
        wheel = parse_line(row, f"{where}:{number}")
        if wheel.name in wheels:
            raise BadLock(f"{where}:{number}: {wheel.name} is locked twice")
        wheels[wheel.name] = wheel
    if not wheels:
        raise BadLock(f"{where}: has no wheels: make it anew with `sparkfleet stack lock`")
    profile, machine, python, glibc, commit = facts.groups(default="")
    return Lock(profile, machine, python, glibc, tuple(wheels[name] for name in sorted(wheels)), commit)


def parse_line(row: str, where: str) -> Wheel:
    """One wheel. Raises BadLock."""
    match = LINE.fullmatch(row.rstrip())
    if match is None:
        what = "a wheel with one SHA-256, its file name and size"
        problem = "has no hash" if "--hash=" not in row else f"expected {what}"
        if re.search(r"\.(tar\.gz|zip)\b", row):
            problem = "is a source distribution, whose build is another one on every host: wheels only"
        raise BadLock(f"{where}: {row.split(' ')[0][:60]}: {problem}")
    try:
        name, version, _, _ = parse_wheel_filename(match["filename"])
    except InvalidWheelFilename as error:
        raise BadLock(f"{where}: {error}") from error
    if name != canonicalize_name(match["name"]) or (match["version"] and match["version"] != str(version)):
        raise BadLock(f"{where}: {match['name']} {match['version'] or ''}: its file is {match['filename']}")
    url = match["url"] or ""
    return Wheel(name, str(version), match["filename"], int(match["size"]), match["sha256"], url)
