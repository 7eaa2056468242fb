"""Versions of kernel, driver, CUDA and packages: whether they go together, and are whole."""

from __future__ import annotations

from sparkfleet.audit.controls import versions_judges as judges
from sparkfleet.audit.model import Aspect, Control, Severity

CONTROLS = (
    Control(
        id="SPK-HOST-06",
        title="The CUDA toolkit goes with the driver",
        severity=Severity.HIGH,
        measure="",
        aspect=Aspect.CONFIGURED,
        why="What an older toolkit builds does not know a GB10; what one builds that is newer than the driver's CUDA "
        "fails as an unsupported PTX.",
        source="CUDA compatibility guide; NVIDIA/nvbandwidth#61",
        manual_fix="let /usr/local/cuda lead to a toolkit between 13.0 and what `nvidia-smi --version` says, or update "
        "the driver",
        evidence=("nvcc", "nvidia_cuda", "gpus"),
        judge=judges.toolkit,
    ),
    Control(
        id="SPK-HOST-16",
        title="No kernel, driver or container toolkit is known to fail",
        severity=Severity.HIGH,
        measure="",
        aspect=Aspect.RUNNING,
        why="Others have lost hosts or days to it already.",
        source="sparkfleet/audit/known_bad.toml, with a source for each",
        manual_fix="take the version that the finding names, and hold it: apt install PACKAGE=VERSION, apt-mark hold",
        evidence=("container_toolkit", "kernel", "nvidia_smi", "gpus"),
        judge=judges.known_to_fail,
    ),
    Control(
        id="SPK-HOST-17",
        title="Every package is configured",
        severity=Severity.HIGH,
        measure="",
        aspect=Aspect.CONFIGURED,
        why="After an update that was cut off half of a driver or kernel is there, and the next apt call fails.",
        source="dpkg-query(1)",
        manual_fix="dpkg --configure -a; apt install -f",
        evidence=("broken_packages",),
        judge=judges.whole,
    ),
    Control(
        id="SPK-HOST-18",
        title="No package of kernel or driver is held back",
        severity=Severity.LOW,
        measure="",
        aspect=Aspect.CONFIGURED,
        why="What is held misses repairs, and half of what belongs together moves on without it.",
        source="apt-mark(8)",
        manual_fix="apt-mark unhold PACKAGE; or waive this, with the reason and a day",
        evidence=("held_packages",),
        judge=judges.held,
    ),
    Control(
        id="SPK-HOST-19",
        title="autoremove leaves the platform's packages alone",
        severity=Severity.MEDIUM,
        measure="",
        aspect=Aspect.SURVIVES_REBOOT,
        why="Where the package that asked for them has gone, the next `apt autoremove` takes driver or firmware away.",
        source="apt-get(8)",
        manual_fix="apt-mark manual what is named",
        evidence=("autoremove", "gpus"),
        judge=judges.kept,
    ),
    Control(
        id="SPK-HOST-20",
        title="The driver runs the stack's CUDA",
        severity=Severity.HIGH,
        measure="",
        aspect=Aspect.RUNNING,
        why="torch of CUDA 13.0 finds no GPU under a driver of CUDA 12.",
        source="CUDA compatibility guide",
        manual_fix="apt install the current nvidia-driver-580-open, then reboot",
        evidence=("nvidia_cuda", "gpus"),
        judge=judges.stack_fits,
    ),
)
