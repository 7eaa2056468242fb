"""Runs sparkhost on a host without installing it: its sources travel with the request, on stdin.

One SSH command plans every measure at once (ADR 2), and nothing of the request shows in a process list.
"""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Any

from sparkhost.base.resource import Resource
from tasks.lib.programs import HOST, closure, with_packages

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


COMMAND = command("sparkhost.base.converge")


@cache
def sources(modules: frozenset[str]) -> dict[str, str]:
    """By dotted name the source of `base.converge`, of these modules, and of all that they import of sparkhost."""
    paths = [HOST / f"{name.replace('.', '/')}.py" for name in {"sparkhost.base.converge", *modules}]
    found = with_packages(closure(paths))
    return {key.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): text for key, text in found.items()}


def kinds(resources: Iterable[dict[str, Any]]) -> set[str]:
    """The kinds of these resources, and of those that stand inside of one (under guard)."""
    return {kind for r in resources for kind in (r["kind"], *kinds(r.get("resources", ())))}


def request(action: str, measures: list[dict[str, Any]], uploads: dict[str, str] | None = None, **more: Any) -> str:
    """The request, packed for stdin. `uploads`: SHA-256 → path on the host of what was delivered; `more`:
    further keys, see `sparkhost.base.converge`.
    """
    known = Resource.KINDS
    modules = {known[k].__module__ for measure in measures for k in kinds(measure["resources"]) if k in known}
    return packed(
        {
            "action": action,
            "modules": sorted(modules),
            "measures": measures,
            "uploads": uploads or {},
            "sources": sources(frozenset(modules)),
            **more,
        }
    )


def packed(request: dict[str, Any]) -> str:
    """A request as it travels: text, less than half its size. Sources are most of it, and each host is sent all."""
    return base64.b64encode(zlib.compress(json.dumps(request).encode(), 6)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """What `packed` packed, as a host has it."""
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return found
