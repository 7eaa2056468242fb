"""The measures, in the order in which they are applied. `pyinfra inventory.py deploy.py`"""

from tasks import (
    cuda_env,
    hardware_watchdog,
    ssh,
    stack,
    swap,
    tools,
    training_slice,
    uv,
    vllm_container,
    vllm_source,
    watchdog,
)
from tasks.lib.converge import deploy

# SSH last: its proof is of the host as all measures leave it.
deploy(swap, cuda_env, uv, stack, tools, training_slice, vllm_source, vllm_container, watchdog, hardware_watchdog, ssh)
