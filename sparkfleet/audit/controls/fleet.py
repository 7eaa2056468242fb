"""The fleet as a whole: what must differ between hosts, and what should not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sparkfleet.audit.controls.cuda_judges import release
from sparkfleet.audit.controls.host_judges import has_gpu, smi
from sparkfleet.audit.controls.kit import about_the_fleet, counted, judged, listed, malformed, not_applicable, one_word
from sparkfleet.audit.model import Aspect, Control, Evidence, FleetJudge, Judgement, NoEvidence, Severity

ONE_HOST = "one host: there is nothing to compare"
Values = Callable[[Evidence], list[str]]
"""What of a host is compared; empty: it does not have such a thing."""


def machine_id(evidence: Evidence) -> list[str]:
    value = one_word(evidence, "machine_id")
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise malformed(evidence, "machine_id")
    return [value[:16]]


def host_keys(evidence: Evidence) -> list[str]:
    lines = evidence.text("host_keys").splitlines()
    if not all(re.fullmatch(r"[a-z0-9@.-]+ SHA256:[A-Za-z0-9+/]{43}", line) for line in lines):
        raise malformed(evidence, "host_keys")
    return lines


def kernel(evidence: Evidence) -> list[str]:
    value = one_word(evidence, "kernel")
    if not re.fullmatch(r"\d[A-Za-z0-9.+~_-]{2,80}", value):
        raise malformed(evidence, "kernel")
    return [value]


def driver(evidence: Evidence) -> list[str]:
    return [smi(evidence)[1]] if has_gpu(evidence) else []


def cuda(evidence: Evidence) -> list[str]:
    text = evidence.text("nvcc")
    found = release(text)
    if not found and text.strip() != "no nvcc":
        raise malformed(evidence, "nvcc")
    return [found] if found else []


def uv(evidence: Evidence) -> list[str]:
    seen = evidence.observations.get("uv_version")
    if seen and seen.rc == 127:
        return []
    match = re.match(r"uv (\d+\.\d+\.\d+)\b", evidence.text("uv_version"))
    if not match:
        raise malformed(evidence, "uv_version")
    return [match[1]]


def dgx_os(evidence: Evidence) -> list[str]:
    text = evidence.text("dgx_release").strip()
    if text == "no DGX OS":
        return []
    match = re.fullmatch(r"DGX OS (\d[\w.+-]{0,40})", text)
    if not match:
        raise malformed(evidence, "dgx_release")
    return [match[1]]


def numbers(evidence: Evidence) -> list[str]:
    """The training users with their numbers, `name uid`; none where there is no such group."""
    if evidence.text("training_people").strip() == "no such group":
        return []
    found = [
        re.fullmatch(r"([^\t]+)\t(\d+)\t.*", line) for line in counted(evidence, "training_people", "training users")
    ]
    if not all(found):
        raise malformed(evidence, "training_people")
    return [f"{match[1]} {match[2]}" for match in found if match]


def same_numbers(hosts: Mapping[str, Evidence]) -> Judgement:
    """No name has two numbers, and no number two names."""
    wanted, found = "one uid for each training user, the same on all hosts", by_value(hosts, numbers)
    if len(hosts) < 2:
        return not_applicable(wanted, ONE_HOST)
    pairs = [(*value.split(" "), ", ".join(names)) for value, names in sorted(found.items())]
    by_name: dict[str, list[str]] = {}
    by_uid: dict[str, list[str]] = {}
    for name, uid, where in pairs:
        by_name.setdefault(name, []).append(f"{uid} on {where}")
        by_uid.setdefault(uid, []).append(f"{name} on {where}")
    wrong = [f"{name} is {' and '.join(those)}" for name, those in by_name.items() if len(those) > 1]
    wrong += [f"uid {uid} is {' and '.join(those)}" for uid, those in by_uid.items() if len(those) > 1]
    return judged(not wrong, wanted, listed(wrong) or f"{len(by_name)} users")


def by_value(hosts: Mapping[str, Evidence], values: Values) -> dict[str, list[str]]:
    """Value → the hosts that have it.

    Raises:
        NoEvidence: with the name of the first host of which it is not known.
    """
    found: dict[str, list[str]] = {}
    for name, evidence in hosts.items():
        try:
            for value in values(evidence):
                found.setdefault(value, []).append(name)
        except NoEvidence as error:
            raise NoEvidence(f"{name}: {error}") from error
    return found


def unique(values: Values, what: str) -> FleetJudge:
    """No two hosts have the same."""

    def judge(hosts: Mapping[str, Evidence]) -> Judgement:
        wanted, found = f"{what} of its own for each host", by_value(hosts, values)
        if len(hosts) < 2:
            return not_applicable(wanted, ONE_HOST)
        shared = [f"{', '.join(names)} share {value}" for value, names in found.items() if len(names) > 1]
        return judged(not shared, wanted, listed(shared) or f"{len(found)} on {len(hosts)} hosts, all different")

    return judge


def equal(values: Values, what: str) -> FleetJudge:
    """All hosts that have one have the same."""

    def judge(hosts: Mapping[str, Evidence]) -> Judgement:
        wanted, found = f"the same {what} on all hosts", by_value(hosts, values)
        if len(hosts) < 2:
            return not_applicable(wanted, ONE_HOST)
        if not found:
            return not_applicable(wanted, f"no host has {what}")
        saw = [f"{value} on {', '.join(names)}" for value, names in sorted(found.items())]
        return judged(len(found) == 1, wanted, listed(saw))

    return judge


def control(
    number: int, title: str, severity: Severity, why: str, source: str, fix: str, evidence: str, judge: FleetJudge
) -> Control:
    """A control that compares hosts."""
    return Control(
        id=f"SPK-FLEET-{number:02}",
        title=title,
        severity=severity,
        measure="",
        aspect=Aspect.CONFIGURED,
        why=why,
        source=source,
        manual_fix=fix,
        evidence=(evidence,),
        judge=about_the_fleet,
        fleet_judge=judge,
    )


CONTROLS = (
    control(
        1,
        "No two hosts have the same machine-id",
        Severity.HIGH,
        "Factory images shared it (CVE-2026-24218): DHCP gives such hosts one address, and their logs are one host's.",
        "machine-id(5); CVE-2026-24218",
        "rm /etc/machine-id; systemd-machine-id-setup; reboot",
        "machine_id",
        unique(machine_id, "a machine-id"),
    ),
    control(
        2,
        "No two hosts have the same SSH host key",
        Severity.CRITICAL,
        "Whoever has one of them can pass for the other (CVE-2026-24218: factory images shared them).",
        "CVE-2026-24218; sshd(8)",
        "rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh; then enrol the host again",
        "host_keys",
        unique(host_keys, "SSH host keys"),
    ),
    control(
        3,
        "All hosts run the same kernel",
        Severity.LOW,
        "A job that fails on one host only is hard enough to explain without this.",
        "uname(1)",
        "apt full-upgrade and reboot the hosts that are behind",
        "kernel",
        equal(kernel, "kernel"),
    ),
    control(
        4,
        "All hosts have the same NVIDIA driver",
        Severity.LOW,
        "Jobs over several hosts fail in NCCL where drivers differ.",
        "nvidia-smi(1)",
        "apt install the same driver package everywhere, and reboot",
        "nvidia_smi",
        equal(driver, "NVIDIA driver"),
    ),
    control(
        5,
        "All hosts have the same CUDA toolkit",
        Severity.LOW,
        "An extension that was built on one host does not load on the next.",
        "nvcc --version",
        "apt install the same cuda-toolkit everywhere",
        "nvcc",
        equal(cuda, "CUDA toolkit"),
    ),
    control(
        6,
        "All hosts have the same uv",
        Severity.LOW,
        "Another uv resolves another stack.",
        "uv --version",
        "deploy the measure uv to all hosts with one version",
        "uv_version",
        equal(uv, "uv"),
    ),
    control(
        7,
        "All hosts have the same release of DGX OS",
        Severity.LOW,
        "Kernel, driver and firmware of a release are tested together; what runs on one host may not on the next.",
        "/etc/dgx-release; DGX OS 7 release notes",
        "update the hosts that are behind, one after the other",
        "dgx_release",
        equal(dgx_os, "DGX OS"),
    ),
    control(
        8,
        "A training user has the same uid on all hosts",
        Severity.LOW,
        "Files on a network share, and jobs of a queue, belong to numbers: with another one on each host a user finds "
        "files that are somebody else's there.",
        "nfs(5); useradd(8), which takes the next free number of each host",
        "usermod -u UID NAME on the host that differs, while the user has no process there; then chown their files",
        "training_people",
        same_numbers,
    ),
)
