"""The hosts of the fleet file ($FLEET, else inventories/lab.yaml) as pyinfra hosts. `pyinfra inventory.py deploy.py`"""

import os
import sys
from pathlib import Path

from sparkfleet.connector import data_of
from sparkfleet.settings import FleetError, FleetHost, load_fleet

# pyinfra makes a group of every list and tuple here whose name has no underscore in front.
_file = Path(os.environ.get("FLEET") or Path(__file__).resolve().parent / "inventories" / "lab.yaml")
try:
    _fleet = load_fleet(_file)
except FleetError as error:
    print(error, file=sys.stderr)
    sys.exit(4)


# `sparkfleet remove` names the hosts that leave.
_leaving = frozenset(os.environ.get("SPARKFLEET_REMOVE", "").split())


def _data(host: FleetHost) -> dict[str, object]:
    return data_of(_fleet, host, host.settings.absent() if host.name in _leaving else host.settings)


all = [(host.name, _data(host)) for host in _fleet.hosts]
globals().update({group: [host.name for host in _fleet.hosts if group in host.groups] for group in _fleet.groups})
