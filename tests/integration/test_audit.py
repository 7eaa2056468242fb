"""What an audit says without the sudo password, and of the machine that it runs on. The rest is in test_deploy.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.integration.auditing import audit, verdicts
from tests.integration.deploying import ROOT, SPARKFLEET, fleet
from tests.lab import Host, Lab


def test_without_the_sudo_password_it_is_missing_evidence_and_never_a_pass(
    lab: Lab, spark2: Host, tmp_path: Path
) -> None:
    path = fleet(lab, [spark2], tmp_path / "fleet.yaml")
    done = audit(lab, path, "--measure", "swap", password="echo wrong")
    assert done.returncode == 3
    assert ("SPK-SWAP-01", spark2.name) in verdicts(done, "error")
    assert verdicts(done, "pass") == set()
    assert "sudo refused the password" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert lab.admin_password not in done.stdout + done.stderr


def test_a_machine_audits_itself() -> None:
    """The probe over the local backend, on this machine, which is not a lab host: it must end in plain lines."""
    done = subprocess.run(
        [SPARKFLEET, "audit", "@local", "--no-store", "--control", "SPK-SWAP-01", "--control", "SPK-SSH-02"],
        env={key: value for key, value in os.environ.items() if key != "FLEET"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode in (0, 1, 3)
    assert "Traceback" not in done.stdout + done.stderr
    assert "@local" in done.stdout
