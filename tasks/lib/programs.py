"""A program of sparkhost that stays on a host."""

from __future__ import annotations

import hashlib
import json
from functools import cache

from sparkfleet.host_sources import HOST, closure, modules_of, with_packages
from sparkhost.base.installed import Installed


@cache
def program(name: str, *packages: str) -> Installed:
    """The program `name`: these packages or modules of sparkhost, and what they import of it.

    Raises:
        FileNotFoundError: a package that does not exist.
    """
    found = with_packages(closure(path for package in packages for path in modules_of(HOST / "sparkhost" / package)))
    modules = dict(sorted(found.items()))
    return Installed(name, hashlib.sha256(json.dumps(modules).encode()).hexdigest()[:16], modules)
