"""A virtual environment as it lies on disk: its distributions, and whose each file is. Nothing in it is run."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from sparkhost.base.elf import BadElf, needed_by

NORMAL = re.compile(r"[-_.]+")
LARGEST = 1 << 23
"""Bytes read of a METADATA or RECORD at most; torch's RECORD is under 2 MB."""


def normal(name: str) -> str:
    """A distribution's name as names are compared (packaging.python.org, name normalization)."""
    return NORMAL.sub("-", name).lower()


def text_of(path: Path, limit: int = LARGEST) -> str:
    """The beginning of a file as text; "" where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(limit).decode(errors="replace")
    except OSError:
        return ""


class Distribution:
    """An installed distribution: its `NAME-VERSION.dist-info`."""

    def __init__(self, info: Path) -> None:
        self.info = info
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        self.name = normal(name)
        self.version = version

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """What its RECORD lists, as absolute paths."""
        rows = csv.reader(text_of(self.info / "RECORD").splitlines())
        return tuple(self.info.parent / row[0] for row in rows if row and row[0])

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Venv:
    """A virtual environment, or any prefix with `lib/python3.*/site-packages`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def sites(self) -> tuple[Path, ...]:
        """Its site-packages; lib64 is mostly a link to lib."""
        found = [*self.path.glob("lib/python3*/site-packages"), *self.path.glob("lib64/python3*/site-packages")]
        return tuple(dict.fromkeys(site.resolve() for site in sorted(found)))

    @cached_property
    def distributions(self) -> dict[str, Distribution]:
        """By normalised name."""
        found = (Distribution(info) for site in self.sites for info in sorted(site.glob("*.dist-info")))
        return {distribution.name: distribution for distribution in found}

    @cached_property
    def owners(self) -> dict[Path, Distribution]:
        """Which distribution has installed a file."""
        return {file: item for item in self.distributions.values() for file in item.files}

    def libraries(self) -> Iterator[Path]:
        """Every shared library, also such as no RECORD lists. Links are not followed."""
        for site in self.sites:
            for path in sorted(site.rglob("*.so*")):
                if path.is_file() and not path.is_symlink():
                    yield path

    @cached_property
    def library_names(self) -> set[str]:
        """Under which names its libraries can be asked for, links included."""
        return {path.name for site in self.sites for path in site.rglob("*.so*")}

    @cached_property
    def needs(self) -> dict[Path, list[str]]:
        """What each library asks for (DT_NEEDED); without those that cannot be read."""
        found = {}
        for path in self.libraries():
            with contextlib.suppress(BadElf, OSError):
                found[path] = needed_by(path)
        return found

    def owner(self, path: Path) -> Distribution | None:
        return self.owners.get(path)

    def has(self, *names: str) -> Distribution | None:
        """The first of these distributions that is installed."""
        return next((self.distributions[name] for name in names if name in self.distributions), None)


def is_venv(path: Path) -> bool:
    return (path / "pyvenv.cfg").is_file()


def venv_of(path: Path) -> Venv | None:
    """The venv at a path, or the `.venv` or `venv` below it."""
    for candidate in (path, path / ".venv", path / "venv"):
        if is_venv(candidate):
            return Venv(candidate)
    return None
