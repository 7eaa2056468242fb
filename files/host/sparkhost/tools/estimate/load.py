"""The peak of loading a model, before anything is computed. Bytes.

A file that is mapped is page cache besides being on the GPU: as large once more, which the kernel gives back. A copy
on the CPU that a program still holds (no `device_map`, `torch.load`, a conversion) is as large and is not given
back: a host of 119 GiB was lost while 62 GB were loaded (NVIDIA-NeMo/Automodel#3532).
"""

from __future__ import annotations

from sparkhost.tools.estimate.sizes import Shape

DIRECT = 'device_map={"": 0}'
SOURCE = f"weights once with {DIRECT}, twice where a copy stays on the CPU"


def load(shape: Shape, resident: int, hosts: int = 1) -> tuple[int, int]:
    """Without and with a second copy. `resident`: bytes of the weights that stay. Of several hosts one reads the
    whole file onto its CPU before it is divided."""
    file = shape.stored or shape.parameters * 2
    return (resident if hosts == 1 else max(resident, file)), resident + file
