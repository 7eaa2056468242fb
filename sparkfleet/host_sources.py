"""Modules of sparkhost that go to a host: which ones a program needs, and how they travel on standard input.

Nothing is installed on the host for it, and nothing of a request shows in a process list.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import sparkhost

HOST = Path(sparkhost.__file__).resolve().parents[1]
"""`files/host` of a checkout; where a wheel puts its packages."""
# Imports of sparkhost in our own sources, as ruff formats them: always `from … import …`. Parsing those with `ast` took
# longer than all rendering; tests/unit/test_installed.py compares the two over all modules.
IMPORT = re.compile(
    r"^[ \t]*from[ \t]+(?P<module>sparkhost[\w.]*)[ \t]+import[ \t]+(?P<names>\([^)]*\)|[^(\n]*)", re.MULTILINE
)
# Serves `import sparkhost` from the request instead of from a disk. The path is absolute and -I ignores
# the environment: a PATH or PYTHONPATH on the host must not decide what root runs. -S: no site-packages.
LOADER = """
import base64, importlib.abc, importlib.util, json, sys, zlib
request = json.loads(zlib.decompress(base64.b64decode(sys.stdin.buffer.read())))
class Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def find_spec(self, name, path=None, target=None):
        if name in request["sources"]:
            return importlib.util.spec_from_loader(name, self)
    def is_package(self, name):
        return any(other.startswith(name + ".") for other in request["sources"])
    def get_source(self, name):
        return request["sources"][name]
sys.meta_path.insert(0, Sources())
from {main} import main
sys.exit(main(request))
"""


def command(main: str) -> str:
    """The command that serves a request by `main(request)` of this module."""
    return f"/usr/bin/python3 -I -S -B -c {shlex.quote(LOADER.replace('{main}', main))}"


def by_name(paths: Iterable[Path]) -> dict[str, str]:
    """By dotted name the source of these files, and of all that they import of sparkhost."""
    found = with_packages(closure(paths))
    return {key.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): text for key, text in found.items()}


def file_of(module: str) -> Path:
    """Where the source of a module is. `module`: its dotted name."""
    return HOST / f"{module.replace('.', '/')}.py"


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


def packed(request: dict[str, Any]) -> str:
    """A request as it travels: text, less than half its size. Sources are most of it, and each host is sent all."""
    return base64.b64encode(zlib.compress(json.dumps(request).encode(), 6)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """What `packed` packed, as a host has it."""
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return found
