"""The CUDA environment, with the same values in every kind of session.

Why: an `export` in ~/.bashrc reaches interactive bash only. The same training started by `ssh host cmd`, from cron or
by systemd then compiles for another GPU, or does not find ptxas at all (Triton needs it for sm_121a: docs/facts.md, 8).

Two files carry the values: /etc/environment (a block of ours at its end), which PAM gives to every ssh session, su,
console login and cron job and which systemd's user managers read; and a script in profile.d, for login shells, because
/etc/profile resets PATH and `sudo -i` may come without PAM's values. No PAM stack is touched: pam_env is in the stock
ones. A third file is for system services that opt in. Where the toolkit is absent none of them is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparkfleet.settings import CudaEnvSettings
from sparkhost.base.files import NoFile
from sparkhost.base.resource import Resource
from sparkhost.cuda_env.environment import (
    EnvironmentBlock,
    EnvironmentFile,
    EnvironmentOverrides,
    FileWith,
    UserManagers,
)
from sparkhost.cuda_env.ldconfig import LibraryPath
from tasks.lib.templates import render

NAME = "cuda_env"
# Sorted behind what packages put there, NVIDIA's own included: directories that those add twice are then seen.
PROFILE = "/etc/profile.d/zz-sparkfleet-cuda.sh"
SERVICES = "/etc/sparkfleet/cuda.env"
LIBRARIES = "/etc/ld.so.conf.d/sparkfleet-cuda.conf"


def values(settings: CudaEnvSettings) -> dict[str, str]:
    """Variables that have one value."""
    return {
        "CUDA_HOME": settings.home,
        "TORCH_CUDA_ARCH_LIST": settings.arch_list,
        # Triton before 3.6 reads the first, later releases the second (docs/facts.md, 8).
        "TRITON_PTXAS_PATH": settings.ptxas_path,
        "TRITON_PTXAS_BLACKWELL_PATH": settings.ptxas_path,
        **settings.variables,
    }


def front(settings: CudaEnvSettings) -> dict[str, str]:
    """Search paths, and the directory that goes in front of them."""
    paths = {"PATH": f"{settings.home}/bin"}
    if settings.ld_library_path == "export":
        paths["LD_LIBRARY_PATH"] = f"{settings.home}/lib64"
    return paths


def profile(values: Mapping[str, str], front: Mapping[str, str]) -> str:
    """The script for login shells."""
    return render("cuda_env/profile.sh", values=values, front=front)


def apply(settings: CudaEnvSettings) -> Sequence[Resource]:
    """The values in /etc/environment, profile.d and the services' file; the libraries by `ld_library_path`."""
    ours, paths = values(settings), front(settings)
    return (
        EnvironmentBlock(NAME, settings.home, ours, paths),
        FileWith(PROFILE, profile(ours, paths), needs=settings.home),
        EnvironmentFile(SERVICES, render("cuda_env/cuda.env.header"), NAME, settings.home, ours, paths),
        _libraries(settings, settings.ld_library_path == "ldconfig"),
        UserManagers(),
        EnvironmentOverrides([PROFILE], settings.home, ours),
    )


def remove(settings: CudaEnvSettings) -> Sequence[Resource]:
    """Everything as it was before, byte for byte; sessions that are open keep what they have."""
    return (
        EnvironmentBlock(NAME, "", values(settings), front(settings)),
        NoFile(PROFILE),
        NoFile(SERVICES),
        _libraries(settings, wanted=False),
        UserManagers(),
    )


def _libraries(settings: CudaEnvSettings, wanted: bool) -> LibraryPath:
    return LibraryPath(f"{settings.home}/lib64", LIBRARIES, render("cuda_env/ld.so.conf.header"), wanted)
