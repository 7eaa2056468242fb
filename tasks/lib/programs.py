"""Which modules of sparkhost a program needs that stays on a host: found by reading what they import."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import sparkhost
from sparkhost.base.installed import Installed

HOST = Path(sparkhost.__file__).resolve().parents[1]
"""`files/host` of a checkout; where a wheel puts its packages."""
# Imports of sparkhost in our own sources, as ruff formats them: always `from … import …`. Parsing those with `ast` took
# longer than all rendering; tests/unit/test_installed.py compares the two over all modules.
IMPORT = re.compile(
    r"^[ \t]*from[ \t]+(?P<module>sparkhost[\w.]*)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^(\n]*)", re.MULTILINE
)


@cache
def program(name: str, *packages: str) -> Installed:
    """The program `name`: these packages or modules of sparkhost, and what they import of it.

    Raises:
        FileNotFoundError: a package that does not exist.
    """
    found = with_packages(closure(path for package in packages for path in modules_of(HOST / "sparkhost" / package)))
    modules = dict(sorted(found.items()))
    return Installed(name, hashlib.sha256(json.dumps(modules).encode()).hexdigest()[:16], modules)


def with_packages(found: dict[str, str]) -> dict[str, str]:
    """These files, and the `__init__.py` of every package that one of them is in: Python imports that first."""
    parents = {parent for key in found for parent in (HOST / key).parents if HOST in parent.parents}
    initial = {str((parent / "__init__.py").relative_to(HOST)): parent / "__init__.py" for parent in parents}
    return {**{key: path.read_text() for key, path in initial.items()}, **found}


def closure(paths: Iterable[Path]) -> dict[str, str]:
    """These files, and all that they import of sparkhost: path below HOST → source."""
    wanted = [*paths]
    found: dict[str, str] = {}
    while wanted:
        path = wanted.pop()
        key = str(path.relative_to(HOST))
        if key not in found:
            found[key] = path.read_text()
            wanted += imported(found[key])
    return found


def modules_of(package: Path) -> list[Path]:
    found = [package] if package.is_file() else sorted(package.rglob("*.py"))
    if not found:
        raise FileNotFoundError(f"{package} has no modules")
    return found


@cache
def imported(source: str) -> list[Path]:
    """The files of sparkhost that a module imports, also in the middle of a function."""
    names: set[str] = set()
    for match in IMPORT.finditer(source):
        listed = re.sub(r"#.*|\bas\s+\w+", "", match["names"])
        names.update([match["module"], *(f"{match['module']}.{name}" for name in re.findall(r"\w+", listed))])
    paths = [HOST / f"{name.replace('.', '/')}{end}" for name in names for end in (".py", "/__init__.py")]
    return sorted(path for path in paths if name_is_ours(path) and path.is_file())


def name_is_ours(path: Path) -> bool:
    return path.is_relative_to(HOST / "sparkhost")
