"""Runs the real `sparkfleet audit` against lab hosts, breaks them in ways that it must name, and reads what it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.integration.deploying import ROOT, SPARKFLEET, environment
from tests.lab import Host, Lab

# Each host has another way of finding the toolkit's libraries.
SETTINGS = {"spark2": {"cuda_env": {"ld_library_path": "ldconfig"}, "uv": {"config": {"preview": False}}}}
DIFFERENT = ("SPK-FLEET-03", "")
"""Debian 12 and 13 have different kernels; of low severity."""


def audit(lab: Lab, fleet_file: Path, *arguments: str, password: str | None = None) -> subprocess.CompletedProcess[str]:
    """Its JSON report on stdout, the terminal's on stderr. Nothing is stored. `password`: a command that prints it."""
    given = {} if password is None else {"SPARKFLEET_SUDO_PASSWORD_COMMAND": password}
    return subprocess.run(
        [SPARKFLEET, "audit", "--no-store", "--json", "-", *arguments],
        cwd=ROOT,
        env={**environment(lab, fleet_file), **given},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def verdicts(done: subprocess.CompletedProcess[str], status: str = "fail") -> set[tuple[str, str]]:
    """(control, host) of every verdict of this status."""
    return {(v["control"], v["host"]) for v in json.loads(done.stdout)["verdicts"] if v["status"] == status}


def break_hosts(first: Host, second: Host) -> set[tuple[str, str]]:
    """Each measure on each host, in ways that a look at our own files would partly miss. Returns what must fail."""
    first.sudo(
        "fallocate -l 16M /by-hand.img && chmod 600 /by-hand.img && mkswap /by-hand.img && swapon /by-hand.img;"
        "sed -i 's/12.1a/9.0/' /etc/profile.d/zz-sparkfleet-cuda.sh;"
        "ln -sfn /usr/local/bin/other-uvx /usr/local/bin/uvx;"
        "printf '#!/bin/sh\\necho uvx 0.9.1\\n' > /usr/local/bin/other-uvx; chmod 755 /usr/local/bin/other-uvx;"
        "sed -i 's/^MemoryMax=.*/MemoryMax=infinity/' /etc/systemd/system/training.slice; systemctl daemon-reload;"
        # After the reload, which puts what is set at run time behind our drop-in by its name.
        "systemctl set-property --runtime system.slice MemoryMin=1M;"
        "systemctl stop sparkfleet-watchdog;"
        "echo import os > $(echo /opt/sparkfleet/stacks/current/lib/python3.*/site-packages)/zz.pth"
    )
    second.sudo(
        "rm /etc/systemd/system/swap.d/zz-sparkfleet.conf; systemctl daemon-reload;"
        "sed -i 's|^CUDA_HOME=.*|CUDA_HOME=/opt/other|' /etc/environment;"
        "echo 'nonsense = 1' >> /etc/uv/uv.toml;"
        "chmod a-x /opt/sparkfleet/lib/killable-session;"
        "systemctl disable --now sparkfleet-launcher.socket;"
        "echo 'nonsense = 1' >> /etc/sparkfleet/watchdog.toml;"
        "rm /usr/local/bin/spark-estimate"
    )
    return {
        ("SPK-SWAP-01", first.name),
        ("SPK-CUDA-04", first.name),
        ("SPK-UV-02", first.name),
        ("SPK-SSH-06", first.name),
        ("SPK-SLICE-01", first.name),
        ("SPK-SLICE-03", first.name),
        ("SPK-WATCHDOG-01", first.name),
        ("SPK-STACK-02", first.name),
        ("SPK-TOOLS-01", second.name),
        ("SPK-WATCHDOG-08", second.name),
        ("SPK-SWAP-03", second.name),
        ("SPK-CUDA-01", second.name),
        ("SPK-CUDA-09", second.name),
        ("SPK-UV-03", second.name),
        ("SPK-SSH-02", second.name),
        ("SPK-SSH-03", second.name),
        ("SPK-SLICE-06", second.name),
        ("SPK-SLICE-07", second.name),
    }
