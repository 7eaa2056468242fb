"""The pinned uv for every user of a host, with or without internet.

Why: the training stack is installed with uv, and a fleet on which every host has another uv resolves other stacks. The
program comes from its wheel on PyPI, by hash: nothing from the net is piped into a shell. The controller fetches the
wheel, so hosts need no internet.

Users keep uv's own defaults. `uv.config` writes /etc/uv/uv.toml for sites that want one (an index of their own, say);
a Python version is not among uv.toml's keys: `uv --python 3.12` or UV_PYTHON say that.
"""

from __future__ import annotations

from collections.abc import Sequence

import tomli_w

from sparkfleet.settings import UvSettings
from sparkhost.base.files import Link, NoFile, NoLink
from sparkhost.base.resource import Resource
from sparkhost.uv.resources import PROGRAMS, STORE, NoUv, UvBinary, UvConfig, store_of

BIN = "/usr/local/bin"
CONFIG = "/etc/uv/uv.toml"
HEADER = "# managed by sparkfleet (measure: uv). Change it in the fleet file, under uv.config.\n"


def apply(settings: UvSettings) -> Sequence[Resource]:
    """The programs, the configuration where there is one, and links in /usr/local/bin.

    In this order: a configuration that the new release does not take ends the measure, with the old release in use.
    """
    version = settings.version
    return (
        UvBinary(version, {str(machine): digest for machine, digest in settings.sha256.items()}),
        UvConfig(CONFIG, HEADER + tomli_w.dumps(settings.config), version=version)
        if settings.config
        else NoFile(CONFIG),
        *(Link(f"{BIN}/{program}", str(store_of(version) / program)) for program in PROGRAMS),
    )


def remove(settings: UvSettings) -> Sequence[Resource]:
    """No uv of ours; another uv that was in /usr/local/bin before comes back."""
    return (*(NoLink(f"{BIN}/{program}", f"{STORE}/") for program in PROGRAMS), NoFile(CONFIG), NoUv())
