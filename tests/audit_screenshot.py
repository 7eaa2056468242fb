"""Writes docs/audit-report.png: the audit's page about a small fleet. `python -m tests.audit_screenshot`"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

from sparkfleet.audit.model import Control, Run, Severity, Status, WaiverNote
from sparkfleet.audit.report import html
from tests.chromium import Pages, browser
from tests.unit.audit_runs import control, run

PICTURE = Path(__file__).parents[1] / "docs" / "audit-report.png"
MOST_BYTES = 200_000
P, F, W, N, E = Status.PASS, Status.FAIL, Status.WAIVED, Status.NOT_APPLICABLE, Status.ERROR

CONTROLS: tuple[Control, ...] = (
    control("SPK-SWAP-01", Severity.CRITICAL, title="no swap is in use"),
    control("SPK-SWAP-02", Severity.HIGH, title="no swap comes back at boot"),
    control("SPK-SWAP-03", Severity.MEDIUM, title="no swap file lies around"),
    control("SPK-SSH-01", Severity.CRITICAL, title="sshd is never killed for memory"),
    control("SPK-SSH-02", Severity.HIGH, title="sessions can be killed"),
    control("SPK-CUDA-01", Severity.HIGH, title="every kind of session has the same CUDA environment"),
    control("SPK-CUDA-02", Severity.MEDIUM, title="Triton finds a ptxas that knows the GPU"),
    control("SPK-UV-01", Severity.LOW, title="uv is the pinned release"),
    control("SPK-HOST-01", Severity.HIGH, title="the next kernel has its initrd and NVIDIA module"),
    control("SPK-HOST-02", Severity.MEDIUM, title="the clock is synchronised"),
    control("SPK-HOST-03", Severity.LOW, title="no reboot is pending"),
)
FLEET: dict[str, list[Status]] = {
    "spark1": [P, P, P, P, P, P, P, P, P, P, P],
    "spark2": [F, F, P, P, P, P, P, P, P, P, F],
    "spark3": [P, P, P, P, P, P, P, P, P, P, P],
    "spark4": [],
    "spark5": [P, P, F, P, P, E, E, P, P, P, P],
    "spark6": [P, P, P, P, P, P, P, F, P, P, F],
    "build1": [W, W, W, P, P, N, N, P, P, P, P],
}
SAID = {
    "SPK-SWAP-01": ("no swap", "/swap.img, 16 GiB, 1.2 GiB in use", "cat /proc/swaps"),
    "SPK-SWAP-02": (
        "no active swap unit after a boot",
        "swap.img.swap is wanted by swap.target",
        "systemctl show '*.swap'",
    ),
    "SPK-UV-01": ("uv 0.13.9", "uv 0.11.2", "/usr/local/bin/uv --version"),
    "SPK-HOST-03": ("no reboot pending", "linux-image-6.11.0-1016-nvidia", "cat /run/reboot-required.pkgs"),
}


def realistic() -> Run:
    """A fleet of seven, as one finds it."""
    made = run(FLEET, CONTROLS, fleet_file="inventories/my-lab.yaml")
    note = WaiverNote("compiles kernels, holds no model", "j.doe@example.org", date(2027, 3, 31), "in force")
    verdicts = []
    for verdict in made.verdicts:
        wanted, saw, command = SAID.get(verdict.control, ("", "", ""))
        told = replace(verdict, waiver=note if verdict.status is W else None)
        if verdict.status in (F, W) and saw:
            told = replace(told, wanted=wanted, saw=saw, command=command)
        verdicts.append(told)
    return replace(made, verdicts=tuple(verdicts))


def main() -> int:
    """Takes the picture. Returns 1 where it is too large for a repository."""
    pages = Pages()
    with browser() as tab:
        tab.size(1000, 1090)
        tab.open(pages.add("report", html.dumps(realistic(), CONTROLS)))
        picture = tab.screenshot()
    pages.close()
    if len(picture) > MOST_BYTES:
        print(f"the picture has {len(picture)} bytes, expected at most {MOST_BYTES}", file=sys.stderr)
        return 1
    PICTURE.write_bytes(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
