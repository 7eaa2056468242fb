"""The programs the lab needs, and how it gets them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError

MISSING = 4
"""Exit status where a needed program is missing and cannot be installed."""

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Tool:
    """A needed program (or file, where it has a slash) and the apt package it comes from."""

    program: str
    package: str


_COMMON = (
    Tool("mmdebstrap", "mmdebstrap"),
    Tool("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    Tool("qemu-img", "qemu-utils"),
    Tool("mkfs.ext4", "e2fsprogs"),
    Tool("mkswap", "util-linux"),
    Tool("ssh", "openssh-client"),
    Tool("ssh-keygen", "openssh-client"),
)
_QEMU = {
    "amd64": Tool("qemu-system-x86_64", "qemu-system-x86"),
    "arm64": Tool("qemu-system-aarch64", "qemu-system-arm"),
}
_FOREIGN = {
    "amd64": (Tool("qemu-x86_64-static", "qemu-user-static"),),
    "arm64": (Tool("qemu-aarch64-static", "qemu-user-static"),),
}

# 96 MB to download, 301 MB installed (Debian 12, amd64); `chromium` would be half as much again.
_BROWSER = Tool("chromium-headless-shell", "chromium-headless-shell")
BROWSERS = (_BROWSER.program, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Programs that show a page without a screen, the smallest first."""
# The double of NVML is a C library that the tests build.
_COMPILER = (Tool("cc", "gcc"), Tool("/usr/include/stdlib.h", "libc6-dev"))
# Fails each write of a change to SSH, in the kernel's place.
_TRACER = Tool("strace", "strace")


# 60 MB on disk; what reads our metrics.
_PROMETHEUS = (
    Tool("promtool", "prometheus"),
    Tool("prometheus", "prometheus"),
    Tool("prometheus-node-exporter", "prometheus-node-exporter"),
)


def find(program: str) -> str | None:
    """The program's path, looked for in the sbin directories too (a user's PATH lacks them on Debian)."""
    if "/" in program:
        return program if Path(program).exists() else None
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def needed(arch: str, native: str) -> list[Tool]:
    """What a host of `arch` needs on a machine of architecture `native`."""
    tools = [*_COMMON, _QEMU[arch]]
    if arch != native:
        tools += [*_FOREIGN[arch], Tool("arch-test", "arch-test"), Tool("update-binfmts", "binfmt-support")]
    return tools


def browser() -> str | None:
    """The path of the browser that tests of HTML pages use; None where this machine has none."""
    return next((path for program in BROWSERS if (path := find(program))), None)


def browser_tools() -> list[Tool]:
    """What is to be installed for tests of HTML pages: nothing where there is a browser, or none to be had by apt.

    Ubuntu's packages of that name install a snap, which needs a running snapd and sees no files in /tmp.
    """
    if browser():
        return []
    if distribution() != "debian":
        remedy = "with one of " + ", ".join(BROWSERS) + " on PATH they run"
        print(f"lab: no browser: tests of the audit's HTML page will be skipped ({remedy})", file=sys.stderr)
        return []
    return [_BROWSER]


def distribution() -> str:
    """This machine's, such as `debian` or `ubuntu`; "" where it does not say."""
    try:
        return platform.freedesktop_os_release().get("ID", "")
    except OSError:
        return ""


def missing(tools: list[Tool]) -> list[Tool]:
    """Those of `tools` that this machine lacks."""
    return [tool for tool in tools if find(tool.program) is None]


def as_root() -> list[str]:
    """The words before a command that must run as root: none for root, else sudo. Raises LabError without both."""
    if os.geteuid() == 0:
        return []
    if find("sudo") is None:
        raise LabError("building an image needs root: run as root, or install sudo", MISSING)
    return ["sudo"]


def for_tests() -> list[Tool]:
    """What tests need beside hosts."""
    return [*_COMPILER, _TRACER, *browser_tools()]


def ensure(arch: str, native: str, *, tests: bool = False, acceptance: bool = False) -> None:
    """Install what is missing with apt: says what, and asks unless CI=true or YES=1.

    `tests`: also what tests need, beside what a host does; `acceptance`: and those of tests/acceptance.

    Raises LabError (status 4) where it cannot: no apt, no root, the answer no, or apt fails.
    """
    more = [*(for_tests() if tests or acceptance else []), *(_PROMETHEUS if acceptance else [])]
    absent = missing([*needed(arch, native), *more])
    if not absent:
        return
    packages = sorted({tool.package for tool in absent})
    programs = ", ".join(tool.program for tool in absent)
    if find("apt-get") is None:
        raise LabError(
            f"missing {programs}, and there is no apt here to install them (Debian/Ubuntu: {' '.join(packages)})",
            MISSING,
        )
    sudo = as_root()
    print(f"lab: missing {programs}; installing: apt-get install {' '.join(packages)}", file=sys.stderr)
    if os.environ.get("CI") != "true" and os.environ.get("YES") != "1":
        if not sys.stdin.isatty():
            raise LabError(
                f"missing {programs}: install {' '.join(packages)}, or set YES=1 to let the lab do so", MISSING
            )
        print("lab: go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise LabError(f"not installed: {' '.join(packages)}", MISSING)
    apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    run_apt([*apt, "update"], "update")
    if _BROWSER in absent and not apt_has(_BROWSER.package):
        print(f"lab: apt has no {_BROWSER.package}: tests of the audit's HTML page will be skipped", file=sys.stderr)
        absent.remove(_BROWSER)
        packages.remove(_BROWSER.package)
    if packages:
        run_apt([*apt, "install", "--no-install-recommends", "--yes", *packages], "install")
    still = missing(absent)
    if still:
        raise LabError(f"still missing after apt-get install: {', '.join(t.program for t in still)}", MISSING)


def run_apt(command: list[str], what: str) -> None:
    """Runs apt-get, its output on stderr. Raises LabError where it fails."""
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode:
        raise LabError(f"apt-get {what} failed", MISSING)


def apt_has(package: str) -> bool:
    """Whether apt knows a package that can be installed."""
    return subprocess.run(["apt-cache", "show", package], capture_output=True, check=False).returncode == 0


def mirror(arch: str, native: str, *, ubuntu: bool) -> str | None:
    """The package mirror for a suite of Debian or Ubuntu: `$SPARKFLEET_LAB_MIRROR`, else the one this machine's apt
    uses for that distribution, else None (mmdebstrap's own default)."""
    chosen = os.environ.get("SPARKFLEET_LAB_MIRROR")
    if chosen:
        return chosen
    if find("apt-get") is None or (ubuntu and arch != native):  # Ubuntu keeps arm64 on other mirrors
        return None
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return pick_mirror(listed.splitlines(), ubuntu=ubuntu)


def pick_mirror(lines: list[str], *, ubuntu: bool) -> str | None:
    """The first of apt's repositories (`ORIGIN RELEASE URI`) that is the whole archive of the distribution."""
    origin, path = ("Ubuntu", "/ubuntu") if ubuntu else ("Debian", "/debian")
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[0] == origin and "-" not in words[1] and words[2].rstrip("/").endswith(path):
            return words[2]
    return None
