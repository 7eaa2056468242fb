"""Runs sparkhost on a host without installing it: its sources travel with the request, on stdin.

One SSH command plans every measure at once (ADR 2), and nothing of the request shows in a process list.
"""

from __future__ import annotations

import json
import shlex
from functools import cache
from typing import Any

from tasks.lib import ROOT

# Serves `import sparkhost` from the request instead of from a disk. The path is absolute and -I ignores
# the environment: a PATH or PYTHONPATH on the host must not decide what root runs. -S: no site-packages.
LOADER = """
import importlib.abc, importlib.util, json, sys
request = json.load(sys.stdin)
class Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def find_spec(self, name, path=None, target=None):
        if name in request["sources"]:
            return importlib.util.spec_from_loader(name, self)
    def is_package(self, name):
        return name == "sparkhost"
    def get_source(self, name):
        return request["sources"][name]
sys.meta_path.insert(0, Sources())
from sparkhost.converge import main
sys.exit(main(request))
"""
COMMAND = f"/usr/bin/python3 -I -S -B -c {shlex.quote(LOADER)}"


@cache
def sources() -> dict[str, str]:
    """Every module of sparkhost, by its dotted name."""
    package = ROOT / "files" / "host" / "sparkhost"
    return {
        "sparkhost" if path.stem == "__init__" else f"sparkhost.{path.stem}": path.read_text()
        for path in sorted(package.glob("*.py"))
    }


def request(action: str, measures: list[dict[str, Any]], uploads: dict[str, str] | None = None) -> str:
    """The request as one line, ready for stdin. `uploads`: SHA-256 → path on the host of what was delivered."""
    return json.dumps({"action": action, "measures": measures, "uploads": uploads or {}, "sources": sources()})
