"""vLLM from source: of the wanted commit, unchanged, root's alone, and built without a failure."""

from __future__ import annotations

from sparkfleet.audit.controls import vllm_source_judges as judges
from sparkfleet.audit.model import Aspect, Control, Severity

MEASURE = "vllm_source"

CONTROLS = (
    Control(
        id="SPK-VLLMSRC-01",
        title="spark-vllm-python takes vLLM of the wanted commit",
        severity=Severity.MEDIUM,
        measure=MEASURE,
        aspect=Aspect.RUNNING,
        why="A build that failed, or is not finished, leaves an older one in use, or none.",
        source="docs/vllm_source.md",
        manual_fix="spark-vllm-source status; once it says why, deploy the measure vllm_source",
        evidence=("spark_vllm_python",),
        judge=judges.of_the_commit,
    ),
    Control(
        id="SPK-VLLMSRC-02",
        title="No file of vLLM's build was changed since it was installed",
        severity=Severity.HIGH,
        measure=MEASURE,
        aspect=Aspect.CONFIGURED,
        why="An edit by hand is in every job from then on, and in no commit.",
        source="docs/vllm_source.md; inode(7), ctime",
        manual_fix="deploy the measure vllm_source: it builds anew; what it is: spark-vllm-source verify",
        evidence=("vllm_source_changed",),
        judge=judges.unchanged,
    ),
    Control(
        id="SPK-VLLMSRC-03",
        title="Only root can change vLLM's build",
        severity=Severity.HIGH,
        measure=MEASURE,
        aspect=Aspect.CONFIGURED,
        why="Everybody runs it: who can write to it runs code as everybody.",
        source="path_resolution(7)",
        manual_fix="chown root: and chmod go-w what is named, then spark-vllm-source verify",
        evidence=("vllm_source_owner",),
        judge=judges.only_root_writes,
    ),
    Control(
        id="SPK-VLLMSRC-04",
        title="The last build of vLLM did not fail",
        severity=Severity.LOW,
        measure=MEASURE,
        aspect=Aspect.RUNNING,
        why="A build in the background fails when nobody looks.",
        source="systemd.service(5), Result",
        manual_fix="spark-vllm-source status names the step and the log; then deploy the measure vllm_source",
        evidence=("vllm_source_unit",),
        judge=judges.not_failed,
    ),
)
