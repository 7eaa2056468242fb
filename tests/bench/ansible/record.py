"""Records what Ansible's modules answer on a converged lab host. `python -m tests.bench.ansible.record ANSWERS.json`

The playbook runs on a simulated host that hands every command on to a real one (spark1) and keeps what its modules
answer: `tests.bench.fleet --answers` plays it from there. Needs a lab, and takes some minutes: the
host is deployed first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from sparkfleet.settings import HostSettings
from tests.bench import contenders
from tests.bench.ansible import generate
from tests.bench.fleet_lab import needed, settle
from tests.bench.simulated import BenchError, SimulatedFleet
from tests.compliance.standins import PREPARE
from tests.integration.deploying import LAB_SETTINGS, environment, fleet
from tests.lab import Lab, LabError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    options = parser.parse_args()
    lab = Lab()
    host = lab.host("spark1")
    host.clean()
    host.sudo(PREPARE)
    with tempfile.TemporaryDirectory(prefix="sparkfleet-bench-") as name:
        directory = Path(name)
        path = fleet(lab, [host], directory / "fleet.yaml")
        settle(contenders.sparkfleet(path, environment(lab, path)), told="on a lab host")
        settings = HostSettings.model_validate(LAB_SETTINGS)
        generated = directory / "ansible"
        generate.write(settings, generated, needed(settings, {host.run("uname -m").stdout.strip()}))
        forward = directory / "forward.json"
        words = ["ssh", "-F", str(lab.ssh_config), host.name, "--"]
        forward.write_text(json.dumps({"words": words, "password": lab.admin_password_file.read_text().strip()}))
        with SimulatedFleet(directory, 1, forward=forward) as simulated:
            listed = [(one.name, one.port, one.user, one.key) for one in simulated.hosts]
            inventory = contenders.inventory(directory / "hosts.ini", listed, simulated.known_hosts)
            ansible = contenders.ansible(inventory, generated)
            settle(ansible, told="on a lab host")
            ansible.run(dry=True)
            options.answers.write_text(json.dumps(simulated.recorded(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, LabError) as error:
        sys.exit(f"record: {error}")
