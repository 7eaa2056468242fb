"""The measures, in the order in which they are applied. `pyinfra inventory.py deploy.py`"""

from tasks import cuda_env, ssh, swap, training_slice, uv
from tasks.lib.converge import deploy

# SSH last: its proof is of the host as all measures leave it.
deploy(swap, cuda_env, uv, training_slice, ssh)
