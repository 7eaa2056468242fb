"""How the facts of a host are judged."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.kit import (
    GIB,
    counted,
    judged,
    listed,
    malformed,
    not_applicable,
    number,
    one_word,
    shortened,
    total_memory,
)
from sparkfleet.audit.model import Evidence, Judgement, NoEvidence
from sparkfleet.settings import HostSettings

CPUS = 20
MEMORY_GIB = ((50, 64), (115, 125))
"""MemTotal of a Spark of 128 GB is 119.7 to 121.7 GiB (reported); others of the family have 64 GB, or 54 GiB."""
OLDEST_DRIVER = 580
LEAST_FREE_BYTES = GIB
LEAST_FREE_SHARE = 0.05
NO_GPU = "no NVIDIA GPU on this host: it is no Spark"


def has_gpu(evidence: Evidence) -> bool:
    """Whether the PCI bus has an NVIDIA GPU. Raises NoEvidence where the probe does not say."""
    return bool(counted(evidence, "gpus", "NVIDIA GPUs"))


def architecture(evidence: Evidence, settings: HostSettings) -> Judgement:
    seen = one_word(evidence, "architecture")
    if not re.fullmatch(r"[a-z0-9_]{3,20}", seen):
        raise malformed(evidence, "architecture")
    return spark(evidence, judged(seen == "aarch64", "aarch64", seen))


def spark(evidence: Evidence, judgement: Judgement) -> Judgement:
    """The judgement on a host with an NVIDIA GPU; elsewhere the facts of a Spark do not apply."""
    return judgement if has_gpu(evidence) else not_applicable(judgement.wanted, NO_GPU)


def processors(evidence: Evidence, settings: HostSettings) -> Judgement:
    seen = number(evidence, "processors")
    return spark(evidence, judged(seen == CPUS, f"{CPUS} processors", f"{seen} processors"))


def memory(evidence: Evidence, settings: HostSettings) -> Judgement:
    seen = total_memory(evidence) / GIB
    wanted = f"MemTotal of a known size: {' or '.join(f'{low} to {high}' for low, high in MEMORY_GIB)} GiB"
    return spark(evidence, judged(any(low <= seen <= high for low, high in MEMORY_GIB), wanted, f"{seen:.1f} GiB"))


def smi(evidence: Evidence) -> tuple[str, str, str]:
    """Name, driver version and compute capability of the first GPU.

    Raises:
        NoEvidence: nvidia-smi said something else.
    """
    first = evidence.text("nvidia_smi").splitlines()[0]
    fields = [field.strip() for field in first.split(",")]
    if len(fields) != 3 or not re.fullmatch(r"\d+(\.\d+)+", fields[1]):
        raise malformed(evidence, "nvidia_smi")
    return fields[0], fields[1], fields[2]


def gpu(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "an NVIDIA GB10, compute capability 12.1 (sm_121)"
    if not has_gpu(evidence):
        return not_applicable(wanted, NO_GPU)
    name, _driver, capability = smi(evidence)
    return judged("GB10" in name and capability == "12.1", wanted, f"{shortened(name, 60)}, {capability}")


def driver(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"driver {OLDEST_DRIVER} or later"
    if not has_gpu(evidence):
        return not_applicable(wanted, NO_GPU)
    seen = evidence.observations.get("nvidia_smi")
    if seen and seen.rc not in (0, 124):
        # Missing, or without a module: nobody can use the GPU, which is a finding.
        return judged(False, wanted, seen.error.splitlines()[0] if seen.error else shortened(seen.output) or "none")
    version = smi(evidence)[1]
    return judged(int(version.split(".")[0]) >= OLDEST_DRIVER, wanted, f"driver {version}")


def ubuntu(evidence: Evidence, settings: HostSettings) -> Judgement:
    found = dict(line.split("=", 1) for line in evidence.text("release").splitlines() if "=" in line)
    if not {"ID", "VERSION_ID"} <= set(found):
        raise malformed(evidence, "release")
    seen = f"{found['ID']} {found['VERSION_ID']}".replace('"', "")
    return spark(evidence, judged(seen == "ubuntu 24.04", "Ubuntu 24.04 (DGX OS 7)", shortened(seen, 60)))


def cgroups(evidence: Evidence, settings: HostSettings) -> Judgement:
    seen = one_word(evidence, "cgroups")
    if not re.fullmatch(r"[a-z0-9]{3,20}", seen):
        raise malformed(evidence, "cgroups")
    return judged(seen == "cgroup2", "cgroup v2", seen)


def one_killer(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no service or process named like a memory killer (earlyoom, nohang, …oom…, memwatch, mem-guard)"
    found, looked = [], 0
    for line in evidence.text("killers").splitlines():
        words = line.split(" ")
        if len(words) != 3:
            raise malformed(evidence, "killers")
        if words[0] == "process":
            found.append(f"{words[2]} runs as process {words[1]}")
            continue
        if not words[0].endswith(".service"):
            raise malformed(evidence, "killers")
        looked += 1
        if words[1] in ("active", "activating", "reloading") or words[2] in ("enabled", "enabled-runtime"):
            found.append(f"{words[0]} is {words[1]}, {words[2]}")
    if not looked:
        raise malformed(evidence, "killers")
    return judged(not found, wanted, listed(found) or "none")


def clock(evidence: Evidence, settings: HostSettings) -> Judgement:
    text = evidence.text("clock").strip()
    if text not in ("NTPSynchronized=yes", "NTPSynchronized=no"):
        raise malformed(evidence, "clock")
    return judged(text.endswith("yes"), "a synchronised clock", text)


def root_disk(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "at least 1 GiB and 5 % of the root file system free, and 5 % of its inodes"
    words = evidence.text("root_disk").split()
    if len(words) != 4 or not all(word.isdecimal() for word in words):
        raise malformed(evidence, "root_disk")
    free, size, inodes_free, inodes = map(int, words)
    if not size:
        raise malformed(evidence, "root_disk")
    # File systems that make inodes as they go say that they have none.
    inodes_share = inodes_free / inodes if inodes else 1.0
    holds = free >= LEAST_FREE_BYTES and free / size >= LEAST_FREE_SHARE and inodes_share >= LEAST_FREE_SHARE
    saw = f"{free / GIB:.1f} GiB ({free / size:.0%}) free of {size / GIB:.1f} GiB, {inodes_share:.0%} of the inodes"
    return judged(holds, wanted, saw)


def no_pending_reboot(evidence: Evidence, settings: HostSettings) -> Judgement:
    text = evidence.text("reboot_required").strip()
    if text != "no" and not text.startswith("for "):
        raise malformed(evidence, "reboot_required")
    return judged(text == "no", "no reboot asked for", "none" if text == "no" else f"a reboot {shortened(text)}")


def kernels(evidence: Evidence) -> list[dict[str, str]]:
    """Each installed kernel: version, initrd (bytes), modules, nvidia. Raises NoEvidence on other text."""
    first, *lines = evidence.text("kernels").strip().splitlines()
    pattern = r"kernel (?P<version>\S+) initrd=(?P<initrd>\d+) modules=(?P<modules>yes|no) nvidia=(?P<nvidia>yes|no)"
    matches = [re.fullmatch(pattern, line) for line in lines]
    if not first.startswith("running ") or not all(matches):
        raise malformed(evidence, "kernels")
    return [match.groupdict() for match in matches if match]


def by_version(kernel: dict[str, str]) -> list[tuple[int, int | str]]:
    """Orders versions as boot loaders do: numbers as numbers."""
    parts = re.findall(r"\d+|[a-z]+", kernel["version"])
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in parts]


def next_kernel(evidence: Evidence) -> dict[str, str]:
    """The newest kernel, which boot loaders take. Raises NoEvidence where none is in /boot."""
    found = kernels(evidence)
    if not found:
        raise NoEvidence("no kernel in /boot: how this host boots cannot be seen")
    return max(found, key=by_version)


def bootable(evidence: Evidence, settings: HostSettings) -> Judgement:
    kernel = next_kernel(evidence)
    lacks = [] if int(kernel["initrd"]) else ["no initrd, or an empty one"]
    lacks += [] if kernel["modules"] == "yes" else ["no modules"]
    saw = f"{kernel['version']}: {', '.join(lacks) or 'both are there'}"
    return judged(not lacks, "an initrd and modules for the newest kernel in /boot", saw)


def nvidia_module(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "the NVIDIA module of the newest kernel in /boot"
    if not has_gpu(evidence):
        return not_applicable(wanted, NO_GPU)
    kernel = next_kernel(evidence)
    saw = f"{kernel['version']}: {'it is there' if kernel['nvidia'] == 'yes' else 'none'}"
    return judged(kernel["nvidia"] == "yes", wanted, saw)


def ended_in_order(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "each end within 7 days a shutdown"
    if evidence.text("boot_ends").strip() == "no journal on disk":
        return not_applicable(wanted, "the journal is kept in memory only: how earlier boots ended cannot be seen")
    ends = [line.split(" ") for line in counted(evidence, "boot_ends", "ends in 7 days")]
    if not all(len(end) == 2 and end[1] in ("shut", "cut") for end in ends):
        raise malformed(evidence, "boot_ends")
    cut = [end[0] for end in ends if end[1] == "cut"]
    saw = (
        f"{len(cut)} of {len(ends)} were none: started again {listed(cut[::-1], 3)}"
        if cut
        else f"{len(ends)}, all in order"
    )
    return judged(not cut, wanted, saw)
