"""How the controls of the CUDA stack are judged. The lock is read here by other code than a deploy's."""

from __future__ import annotations

import re
from functools import cache

from sparkfleet import places
from sparkfleet.audit.controls.kit import counted, judged, listed, malformed, not_applicable, one_word
from sparkfleet.audit.model import Evidence, Judgement, NoEvidence
from sparkfleet.settings import HostSettings

FILES = places.FILES / "stack"
LOCKED = re.compile(
    r"^([a-z0-9.-]+)(?:==| @ )\S+ --hash=sha256:[0-9a-f]{64}  # [^-\s]+-([^-\s]+)-\S+\.whl ", re.MULTILINE
)
NO_STACK = "no stack"
NOT_FOUND = 127


@cache
def locked(profile: str, machine: str) -> dict[str, str]:
    """Distribution → version, as the lock's file names say. Raises NoEvidence where there is no lock."""
    try:
        text = (FILES / profile / f"lock.{machine}.txt").read_text(encoding="utf-8")
    except OSError as error:
        raise NoEvidence(f"the profile {profile} has no lock for {machine}") from error
    return {name: plain(version) for name, version in LOCKED.findall(text)}


def plain(version: str) -> str:
    """Without zeros in front of numbers: metadata may have them, file names do not."""
    return ".".join(part.lstrip("0") or "0" if part.isdecimal() else part for part in version.lower().split("."))


def is_there(evidence: Evidence, name: str) -> bool:
    return evidence.text(name).strip() != NO_STACK


def as_locked(evidence: Evidence, settings: HostSettings) -> Judgement:
    stack = settings.stack
    pinned = stack.release or ""
    wanted = f"the release {pinned}" if pinned else f"exactly what the lock of {stack.profile} has"
    if not is_there(evidence, "stack_installed"):
        return judged(False, wanted, "no stack is installed")
    first, *lines = evidence.text("stack_installed").strip().split("\n")
    head = re.fullmatch(r"(\d+) distributions in (\S+)", first)
    if not head or len(lines) != int(head[1]):
        raise malformed(evidence, "stack_installed")
    if pinned:
        return judged(head[2] == pinned, wanted, head[2])
    found = {}
    for line in lines:
        name, _, version = line.partition(" ")
        found[re.sub(r"[-_.]+", "-", name).lower()] = plain(version)
    lock = locked(stack.profile, one_word(evidence, "architecture"))
    wrong = [f"{name} {found[name]} is not in the lock" for name in sorted(found.keys() - lock.keys())]
    wrong += [f"{name} is missing" for name in sorted(lock.keys() - found.keys())]
    both = sorted(found.keys() & lock.keys())
    wrong += [f"{name} is {found[name]}, not {lock[name]}" for name in both if found[name] != lock[name]]
    if len(lines) != len(found):
        wrong.append("a distribution is there twice")
    return judged(not wrong, wanted, listed(wrong) or f"{len(found)} packages, {head[2]}")


def unchanged(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no file changed, added or removed since the stack was found whole"
    if not is_there(evidence, "stack_changed"):
        return judged(False, wanted, "no stack is installed")
    wrong = counted(evidence, "stack_changed", "files")
    if not all(line.startswith(("changed ", "added ", "missing ", "the release was never ")) for line in wrong):
        raise malformed(evidence, "stack_changed")
    looked = evidence.text("stack_changed").partition("\n")[0]
    return judged(not wrong and looked != "0 files", wanted, listed(wrong) or looked)


def only_root_writes(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "the stack and every directory above root's, and writable for root only"
    if not is_there(evidence, "stack_owner"):
        return judged(False, wanted, "no stack is installed")
    wrong = counted(evidence, "stack_owner", "paths")
    if not all(re.fullmatch(r"\d+ [0-7]{4} .+", line) for line in wrong):
        raise malformed(evidence, "stack_owner")
    looked = evidence.text("stack_owner").partition("\n")[0]
    return judged(not wrong and looked != "0 paths", wanted, listed(wrong) or looked)


def has_torch(evidence: Evidence) -> bool:
    return evidence.text("stack_torch").strip() not in (NO_STACK, "no torch")


def cuda_13_libraries(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "the loader takes CUDA 13's libraries for torch, vLLM and Triton"
    if not is_there(evidence, "stack_libraries"):
        return judged(False, wanted, "no stack is installed")
    lines = counted(evidence, "stack_libraries", "libraries")
    if not all(re.fullmatch(r"\S+ lib\S+\.so[.0-9]*", line) for line in lines):
        raise malformed(evidence, "stack_libraries")
    if not has_torch(evidence):
        return not_applicable(wanted, "there is no torch in this stack")
    wrong = [line for line in lines if re.search(r"\.so\.1[12](\.|$)", line)]
    fine = any(re.search(r" libcudart\S*\.so\.13(\.|$)", line) for line in lines)
    return judged(fine and not wrong, wanted, listed(wrong) or listed(lines) or "no library of CUDA at all")


def cuda_13_torch(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "torch is a build for CUDA 13.0"
    if not is_there(evidence, "stack_torch"):
        return judged(False, wanted, "no stack is installed")
    if not has_torch(evidence):
        return not_applicable(wanted, "there is no torch in this stack")
    match = re.fullmatch(r"cuda\b[^=\n]*= *(\S+) *\nlibtorch_cuda\.so (present|absent)\n", evidence.text("stack_torch"))
    if not match:
        raise malformed(evidence, "stack_torch")
    holds = match[1].strip("'\"") == "13.0" and match[2] == "present"
    return judged(holds, wanted, f"cuda = {match[1]}, libtorch_cuda.so is {match[2]}")


def no_flash_attention(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no flash-attn in the stack"
    if not is_there(evidence, "stack_flash"):
        return judged(False, wanted, "no stack is installed")
    found = counted(evidence, "stack_flash", "found")
    if evidence.text("stack_flash").partition(" ")[0] != str(len(found)):
        raise malformed(evidence, "stack_flash")
    return judged(not found, wanted, listed(found) or "none")


def starts(evidence: Evidence, settings: HostSettings) -> Judgement:
    """What the login user gets, by PATH, whatever the files say."""
    wanted = "spark-python starts the Python of the stack in use"
    seen = evidence.observations.get("spark_python")
    if seen and seen.rc == NOT_FOUND:
        return judged(False, wanted, seen.error.splitlines()[0] if seen.error else "no spark-python in PATH")
    prefix, _, target = evidence.text("spark_python").strip().partition("\n")
    if not prefix.startswith("/") or not target.startswith("/"):
        raise malformed(evidence, "spark_python")
    return judged(prefix == target, wanted, prefix if prefix == target else f"{prefix}, and current is {target}")
