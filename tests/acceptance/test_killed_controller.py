"""All measures: the controller killed at ten moments of a deploy. The host stays whole, and a rerun converges."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.deploying import deploy, fleet, wait_for
from tests.integration.lockout import STEPS, deploy_until, logs_in, wait_until_settled
from tests.integration.sessions import KILLABLE, fresh_session
from tests.lab import Host, Lab

MOMENTS = (
    "Connected",
    "Starting operation: swap",
    "Starting operation: cuda_env",
    "Starting operation: uv",
    "Starting operation: ssh",
    *STEPS,
    "Starting operation: systemd",
)


@pytest.fixture(scope="module")
def host(spark2: Host) -> Host:
    """The one whose sudo wants a password, and whose sshd is started by a socket."""
    spark2.sudo("mkdir -p /usr/local/cuda/bin /usr/local/cuda/lib64")  # stands in for the toolkit
    spark2.snapshot("killed")
    return spark2


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at(lab: Lab, host: Host, tmp_path: Path, moment: str) -> None:
    host.restore("killed")
    path = fleet(lab, [host], tmp_path / "fleet.yaml", {"ssh": {"confirm_within": "45s"}})
    deploy_until(lab, path, moment).kill()
    # What the killed run had started on the host may still be at work.
    wait_for(host, "! pgrep -f '[p]ython3 -I -S -B' >/dev/null", timeout=120)
    wait_until_settled(host)
    assert logs_in(host)
    assert host.sudo("find / -xdev -name '*.sparkfleet-new'").stdout == ""
    assert host.run("findmnt --verify --tab-file /etc/fstab >/dev/null; test -s /etc/fstab").rc == 0
    calm = fleet(lab, [host], tmp_path / "calm.yaml", {"ssh": {"confirm_within": "300s"}})
    rerun = deploy(lab, calm)
    assert rerun.rc == 0, rerun.output
    assert fresh_session(host, "alice") == KILLABLE
    assert host.run("awk 'NR>1' /proc/swaps").stdout == ""
    assert deploy(lab, calm).changes(host.name) == {}
