"""All measures, on every host. `pyinfra inventory.py deploy.py`"""

from sparkfleet.operations import all_measures

all_measures()
