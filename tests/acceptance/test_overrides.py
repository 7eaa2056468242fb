"""What is configured is what holds: each file of ours that somebody's outranks is named, whatever measure has it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

from tests.integration.deploying import all_but, deploy, fleet
from tests.lab import Host, Lab

UNITS = "/etc/systemd/system"
# Settings of ours, and what a site may have instead without harm to a lab host.
INSTEAD = {
    "CPUWeight": "1",
    "MemoryMax": "infinity",
    "MemoryMin": "0",
    "MemorySwapMax": "infinity",
    "OOMScoreAdjust": "100",
    "SocketMode": "0600",
    "TasksMax": "infinity",
}
SECTIONS = {".service": "Service", ".slice": "Slice", ".socket": "Socket"}


@pytest.fixture(scope="module", params=["spark1", "spark2"])
def host(request: pytest.FixtureRequest) -> Host:
    """Debian 12, then Debian 13."""
    chosen: Host = request.getfixturevalue(request.param)
    return chosen


def overrides(host: Host) -> dict[str, tuple[str, str]]:
    """By each file of ours of systemd's: a file of a site's that outranks it, and its content."""
    found = {}
    for ours in host.sudo(f"grep -rl 'managed by sparkfleet' {UNITS}").stdout.split():
        text = host.sudo(f"cat {ours}").stdout
        unit = PurePosixPath(ours).relative_to(UNITS).parts[0].removesuffix(".d").replace("user-.", "user-1001.")
        keys = [key for key in INSTEAD if re.search(f"^{key}=", text, re.MULTILINE)]
        if keys:
            lines = [f"[{SECTIONS[PurePosixPath(unit).suffix]}]", *(f"{key}={INSTEAD[key]}" for key in keys)]
            found[ours] = f"{UNITS}/{unit}.d/zz-site.conf", "".join(f"{line}\n" for line in lines)
    return found


def test_each_file_that_outranks_one_of_ours_is_named_until_it_is_gone(lab: Lab, host: Host, tmp_path: Path) -> None:
    host.clean()
    measures = ("ssh", "swap", "training_slice", "watchdog")
    path = fleet(lab, [host], tmp_path / "fleet.yaml", all_but(*measures))
    first = deploy(lab, path)
    assert first.rc == 0, first.output
    host.run("true", user="alice")
    sites = overrides(host)
    assert len(sites) >= 8, sites
    for file, text in sites.values():
        host.sudo(f"mkdir -p {file.rpartition('/')[0]}; cat > {file}", input=text)
    host.sudo("systemctl daemon-reload")
    refused = deploy(lab, path)
    assert refused.rc == 1
    assert "Traceback" not in refused.output
    assert [ours for ours, (file, _) in sites.items() if f"{file} overrides {ours}: remove" not in refused.output] == []
    for file, _ in sites.values():
        host.sudo(f"rm {file}; rmdir --ignore-fail-on-non-empty {file.rpartition('/')[0]}")
    host.sudo("systemctl daemon-reload")
    assert deploy(lab, path).rc == 0
    assert deploy(lab, path).changes(host.name) == {}
