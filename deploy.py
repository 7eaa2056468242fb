"""The measures, in the order in which they are applied. `pyinfra inventory.py deploy.py`"""

from tasks import cuda_env, swap, uv
from tasks.lib.converge import deploy

deploy(swap, cuda_env, uv)
