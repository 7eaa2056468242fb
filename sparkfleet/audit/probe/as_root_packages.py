"""What dpkg and apt say of packages: not whole, to be taken by autoremove; the release of DGX OS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe.as_root_host import nvidia_gpus
from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run

RELEASE = "/etc/dgx-release"
PLATFORM = re.compile(r"(?:nvidia|libnvidia|dgx|cuda|linux)-[a-z0-9.+-]*")
A_KERNELS = re.compile(r"-\d+\.\d+\.\d+-\d+")
"""Of one kernel: an old one may go."""
TOOLKIT = "nvidia-container-toolkit"


def whole(parameters: Parameters) -> Mapping[str, Seen]:
    """Packages that are neither installed nor gone, such as half-configured ones; the container toolkit's version."""
    format_ = "${db:Status-Status} ${Package} ${Version}\\n"
    seen = run(("dpkg-query", "-W", "-f", format_), limit=1 << 20)
    rows = [line.split(" ") for line in seen.output.splitlines()]
    well = ("installed", "config-files", "not-installed")
    found = [f"{row[1]} {row[0]}" for row in rows if len(row) == 3 and row[0] not in well]
    toolkit = [row[2] for row in rows if row[:2] == ["installed", TOOLKIT]]
    return {
        "broken_packages": seen._replace(
            command="dpkg --audit", output="\n".join([f"{len(found)} packages not whole", *found, ""])
        ),
        "container_toolkit": seen._replace(command=f"dpkg-query -W {TOOLKIT}", output=f"{(*toolkit, 'none')[0]}\n"),
    }


def autoremove(parameters: Parameters) -> Mapping[str, Seen]:
    """What `apt autoremove` would take of the platform; not asked without a GPU, as it takes seconds."""
    command = ("apt-get", "--simulate", "--quiet", "autoremove")
    if not nvidia_gpus():
        return {"autoremove": Seen(" ".join(command), "no GPU\n")}
    seen = run(command, limit=1 << 19)
    names = re.findall(r"^Remv (\S+) ", seen.output, re.MULTILINE)
    found = [name for name in names if PLATFORM.fullmatch(name) and not A_KERNELS.search(name)]
    first = f"{len(found)} packages of the platform that autoremove takes"
    return {"autoremove": seen._replace(output="\n".join([first, *found, ""]))}


def release(parameters: Parameters) -> Mapping[str, Seen]:
    """DGX OS's release: the last update's, or what it was installed as."""
    if not Path(RELEASE).exists():
        return {"dgx_release": Seen(f"cat {RELEASE}", "no DGX OS\n")}
    seen = read(RELEASE)
    said = re.findall(r'^DGX_(?:OTA|SWBUILD)_VERSION="?([0-9][\w.+-]*)"?$', seen.output, re.MULTILINE)
    return {"dgx_release": seen._replace(output=f"DGX OS {(*said[-1:], 'unknown')[0]}\n")}


LOOKS: dict[str, Looks] = {"broken_packages": whole, "autoremove": autoremove, "dgx_release": release}
