"""How versions are judged: whether they go together, are known to fail, and are whole."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sparkfleet.audit.controls.cuda_judges import release as cuda_release
from sparkfleet.audit.controls.host_judges import NO_GPU, has_gpu, smi
from sparkfleet.audit.controls.kit import counted, judged, listed, malformed, not_applicable, one_word
from sparkfleet.audit.known_bad import listing
from sparkfleet.audit.model import Evidence, Judgement
from sparkfleet.settings import HostSettings

OLDEST_CUDA = (13, 0)
"""The first that knows a GB10 (sm_121), and what the stack's profiles are built for."""


def number(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def driver_cuda(evidence: Evidence) -> str:
    """The newest CUDA that the driver runs. Raises NoEvidence where nvidia-smi says something else."""
    match = re.search(r"^CUDA Version *: *(\d+\.\d+)\b", evidence.text("nvidia_cuda"), re.MULTILINE)
    if not match:
        raise malformed(evidence, "nvidia_cuda")
    return match[1]


def toolkit(evidence: Evidence, settings: HostSettings) -> Judgement:
    """A driver runs what toolkits up to its own CUDA compile; code of a newer one is refused as PTX."""
    wanted = "a CUDA toolkit of 13.0 or later, not newer than the driver's CUDA"
    text = evidence.text("nvcc")
    found = cuda_release(text)
    if not found and text.strip() != "no nvcc":
        raise malformed(evidence, "nvcc")
    if not has_gpu(evidence):
        return not_applicable(wanted, NO_GPU)
    if not found:
        return judged(False, wanted, "no nvcc")
    most = driver_cuda(evidence)
    return judged(OLDEST_CUDA <= number(found) <= number(most), wanted, f"toolkit {found}, the driver's CUDA {most}")


def stack_fits(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Both profiles are built for CUDA 13.0, which every driver with a later 13 runs, and a later major too."""
    wanted = "a driver that runs the stack's CUDA 13.0"
    if not has_gpu(evidence):
        return not_applicable(wanted, NO_GPU)
    most = driver_cuda(evidence)
    return judged(number(most) >= OLDEST_CUDA, wanted, f"the driver's CUDA is {most}")


def known_to_fail(evidence: Evidence, settings: HostSettings) -> Judgement:
    """By the list of this version of sparkfleet, which says how old it is."""
    known = listing()
    wanted = f"no version that is reported to fail ({known.age(datetime.now(UTC).date())})"
    has = {"kernel": one_word(evidence, "kernel"), "container-toolkit": package_version(evidence, "container_toolkit")}
    if not has_gpu(evidence):
        return not_applicable(wanted, NO_GPU)
    has["driver"] = smi(evidence)[1]
    found = [
        f"{report.kind} {has[report.kind]}: {report.what} ({report.source}, {report.reported})"
        + (f"; {report.until}" if report.until else "")
        for report in known.known
        if has[report.kind] and report.fits(has[report.kind])
    ]
    said = ", ".join(f"{kind} {version or 'none'}" for kind, version in has.items())
    return judged(not found, wanted, listed(found) or said)


def package_version(evidence: Evidence, name: str) -> str:
    """The version of a package; "" where it is not installed. Raises NoEvidence on other text."""
    text = one_word(evidence, name)
    if text == "none":
        return ""
    if not re.fullmatch(r"[0-9][A-Za-z0-9.+~:-]*", text):
        raise malformed(evidence, name)
    return text


def whole(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "each package installed and configured"
    found = named(evidence, "broken_packages", "packages not whole")
    return judged(not found, wanted, listed(found) or "all are")


def held(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no package of kernel, driver or platform held back"
    found = named(evidence, "held_packages", "held packages")
    return judged(not found, wanted, listed(found) or "none")


def kept(evidence: Evidence, settings: HostSettings) -> Judgement:
    """On a host with a GPU: elsewhere nobody misses them."""
    wanted = "apt's autoremove takes no package of the platform"
    if not has_gpu(evidence):
        return not_applicable(wanted, NO_GPU)
    found = named(evidence, "autoremove", "packages of the platform that autoremove takes")
    return judged(not found, wanted, listed(found) or "none")


def named(evidence: Evidence, name: str, of: str) -> list[str]:
    """Packages, a line each. Raises NoEvidence on other text."""
    found = counted(evidence, name, of)
    if not all(re.fullmatch(r"[a-z0-9][A-Za-z0-9.+:-]+( [a-z-]+)?", line) for line in found):
        raise malformed(evidence, name)
    return found
