"""Makes a lock: uv resolves the profile's input for the hosts' platform, and of each release the best wheel is taken.

uv's own settings hold (index, login, proxy, certificates), except for the choice of a PyTorch build, which
`torch-backend` would make from this machine's GPU.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from sparkfleet import child
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.stack.lock import Lock, Wheel
from sparkfleet.stack.profile import COMMIT, INPUT, Profile
from sparkfleet.temporary import temporary_directory

# A choice by this machine's GPU, and the versions of the stack that this machine has itself (`constrain_users`).
LEFT_OUT = ("UV_TORCH_BACKEND", "UV_CONSTRAINT", "UV_OVERRIDE")
TIMEOUT = 900
"""Seconds that a resolution may take."""
LOCK_BYTES = 64 * child.MIB
"""uv names every wheel of every release that it chose: 0.5 MiB for the stack."""


def resolve(profile: Profile, machine: str, commit: str = "", *, arguments: Sequence[str] = ()) -> Lock:
    """The lock that the profile's input gives today. `arguments`: further ones for uv, such as an index.

    Raises:
        CommandFailed: it cannot be resolved, or some release has no wheel for that platform.
    """
    with temporary_directory() as folder:
        source = Path(folder) / INPUT
        source.write_text(profile.text.replace(COMMIT, commit), encoding="utf-8")
        found = pylock(source, platform_of(profile, machine), profile.python, arguments)
    wheels = [chosen(package, profile, machine) for package in found["packages"]]
    ordered = tuple(sorted(wheels, key=lambda wheel: wheel.name))
    return Lock(profile.name, machine, profile.python, profile.glibc, ordered, commit)


def platform_of(profile: Profile, machine: str) -> str:
    """As uv calls it: aarch64-manylinux_2_39."""
    return f"{machine}-manylinux_{profile.glibc.replace('.', '_')}"


def pylock(source: Path, platform: str, python: str, arguments: Sequence[str] = ()) -> Mapping[str, Any]:
    """What uv resolves a file of requirements to, as PEP 751 has it. Raises CommandFailed."""
    # uv reads the settings of the project that it stands in: the folder of the source, and no other's.
    command = [uv(), "pip", "compile", source.name, "--quiet", "--format", "pylock.toml", "--only-binary", ":all:"]
    command += ["--python-platform", platform, "--python-version", python, "--no-python-downloads", *arguments]
    given = {**{name: value for name, value in os.environ.items() if name not in LEFT_OUT}, "NO_COLOR": "1"}
    try:
        done = child.run(command, child.Limits(TIMEOUT, LOCK_BYTES), cwd=source.parent, env=given)
    except child.OutOfBounds as error:
        raise CommandFailed(f"uv did not resolve it: {error}") from error
    if done.rc:
        raise CommandFailed(f"uv cannot resolve it: {reason(done.stderr.decode(errors='replace'))}")
    return tomllib.loads(done.stdout.decode())


def uv() -> str:
    """The uv beside this Python, which `make setup` has put there by hash. Raises CommandFailed."""
    program = Path(sys.executable).with_name("uv")
    if not program.is_file():
        raise CommandFailed(f"there is no uv in {program.parent}: run make setup", ExitCode.BAD_CONFIGURATION)
    return str(program)


def reason(message: str) -> str:
    """uv's message as one line: without the colours, frames and hints of its own."""
    words = re.sub(r"[\u00d7\u2500-\u25ff]|^error:", " ", message, flags=re.MULTILINE)
    line = " ".join(words.split())
    return line if len(line) <= 400 else line[:399] + "…"


def chosen(package: Mapping[str, Any], profile: Profile, machine: str) -> Wheel:
    """The one wheel of a package that the hosts would take. Raises CommandFailed."""
    name = canonicalize_name(package["name"])
    files = {filename(wheel): wheel for wheel in wheels_of(package)}
    order = {tag: rank for rank, tag in enumerate(tags(profile, machine))}
    ranked = {file: best for file in files if (best := rank_of(file, order)) is not None}
    if not ranked:
        raise CommandFailed(
            f"{name} {package.get('version', '')}: no wheel for {platform_of(profile, machine)} and CPython "
            f"{profile.python}: wheels only, a source would be built otherwise on every host"
        )
    file = min(ranked, key=lambda one: (ranked[one], one))
    wheel = files[file]
    if "sha256" not in wheel.get("hashes", {}):
        raise CommandFailed(f"{name}: {file} has no SHA-256 in its index: there would be nothing to check it against")
    version = str(parse_wheel_filename(file)[1])
    url = wheel["url"] if name in profile.sources else ""
    return Wheel(name, version, file, size_of(wheel), wheel["hashes"]["sha256"], url)


def wheels_of(package: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of an index, or the one that a URL names."""
    if "archive" in package:
        return [package["archive"]] if filename(package["archive"]).endswith(".whl") else []
    return list(package.get("wheels", []))


def filename(wheel: Mapping[str, Any]) -> str:
    name: str = wheel.get("name") or unquote(
        urlsplit(wheel.get("url") or wheel.get("path", "")).path.rpartition("/")[2]
    )
    return name


def size_of(wheel: Mapping[str, Any]) -> int:
    """Bytes of a wheel, as its index says; else as its server does. Raises CommandFailed."""
    if wheel.get("size"):
        return int(wheel["size"])
    if "path" in wheel:
        return Path(wheel["path"]).stat().st_size
    request = urllib.request.Request(wheel["url"], method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError) as error:
        raise CommandFailed(f"{wheel['url']}: its server does not say its size: {error}") from error


def rank_of(file: str, order: Mapping[Tag, int]) -> int | None:
    """How good a wheel fits, 0 for best; None: it does not."""
    return min((order[tag] for tag in parse_wheel_filename(file)[3] if tag in order), default=None)


def tags(profile: Profile, machine: str) -> list[Tag]:
    """What a host's CPython takes, best first (PEP 425, PEP 600)."""
    major, minor = (int(part) for part in profile.python.split("."))
    newest = int(profile.glibc.split(".")[1])
    legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    platforms = []
    for glibc in range(newest, 4, -1):
        platforms += [f"manylinux_2_{glibc}_{machine}", *([f"{legacy[glibc]}_{machine}"] if glibc in legacy else [])]
    platforms.append(f"linux_{machine}")
    python = (major, minor)
    return [*cpython_tags(python, platforms=platforms), *compatible_tags(python, f"cp{major}{minor}", platforms)]
