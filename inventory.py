"""The hosts of the fleet file ($FLEET, else inventories/lab.yaml) as pyinfra hosts. `pyinfra inventory.py deploy.py`"""

import os
import sys
from pathlib import Path

from sparkfleet.connector import fleet_of
from sparkfleet.settings import FleetError

_file = Path(os.environ.get("FLEET") or Path(__file__).resolve().parent / "inventories" / "lab.yaml")
try:
    fleet_of(_file)
except FleetError as error:  # pyinfra's own code for it would be 1
    print(error, file=sys.stderr)
    sys.exit(4)

all = [f"@sparkfleet/{_file}"]
