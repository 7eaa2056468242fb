"""The measures, in the order in which they are applied. `pyinfra inventory.py deploy.py`"""

from tasks import swap
from tasks.lib.converge import deploy

deploy(swap)
