"""How the controls of vLLM from source are judged."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.kit import counted, judged, listed, malformed, unit_in
from sparkfleet.audit.model import Evidence, Judgement
from sparkfleet.settings import HostSettings

UNIT = "sparkfleet-vllm-source.service"
NO_BUILD = "no build"
NOT_FOUND = 127


def of_the_commit(evidence: Evidence, settings: HostSettings) -> Judgement:
    """What the login user gets, by PATH, whatever the files say."""
    commit = settings.vllm_source.commit or ""
    wanted = f"spark-vllm-python imports vLLM as built of {commit[:12]}"
    seen = evidence.observations.get("spark_vllm_python")
    if seen and seen.rc == NOT_FOUND:
        return judged(False, wanted, seen.error.splitlines()[0] if seen.error else "no spark-vllm-python in PATH")
    lines = evidence.text("spark_vllm_python").splitlines()
    if len(lines) != 4 or not lines[0].startswith("/") or not lines[1].startswith("/"):
        raise malformed(evidence, "spark_vllm_python")
    prefix, target, origin, built = lines
    if not re.fullmatch(r"[0-9a-f]{40}", built):
        raise malformed(evidence, "spark_vllm_python")
    if prefix != target or not origin.startswith(f"{target}/"):
        return judged(False, wanted, f"{prefix}, vllm from {origin}; the build in use is {target}")
    return judged(built == commit, wanted, f"{target}, of {built[:12]}")


def unchanged(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no file changed, added or removed since vLLM was installed"
    if evidence.text("vllm_source_changed").strip() == NO_BUILD:
        return judged(False, wanted, "no build is in use")
    wrong = counted(evidence, "vllm_source_changed", "files")
    if not all(line.startswith(("changed ", "added ", "missing ", "the release was never ")) for line in wrong):
        raise malformed(evidence, "vllm_source_changed")
    looked = evidence.text("vllm_source_changed").partition("\n")[0]
    return judged(not wrong and looked != "0 files", wanted, listed(wrong) or looked)


def only_root_writes(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "the build and every directory above root's, and writable for root only"
    if evidence.text("vllm_source_owner").strip() == NO_BUILD:
        return judged(False, wanted, "no build is in use")
    wrong = counted(evidence, "vllm_source_owner", "paths")
    if not all(re.fullmatch(r"\d+ [0-7]{4} .+", line) for line in wrong):
        raise malformed(evidence, "vllm_source_owner")
    looked = evidence.text("vllm_source_owner").partition("\n")[0]
    return judged(not wrong and looked != "0 paths", wanted, listed(wrong) or looked)


def not_failed(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "the last build did not fail"
    found = unit_in(evidence, "vllm_source_unit", UNIT)
    load, state, result = (found.get(name, "") for name in ("LoadState", "ActiveState", "Result"))
    if not (load and state and result):
        raise malformed(evidence, "vllm_source_unit")
    if load != "loaded":
        return judged(False, wanted, f"{UNIT} is {load}")
    return judged(state != "failed" and result == "success", wanted, f"{state}, {result}")
