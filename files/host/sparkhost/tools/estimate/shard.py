"""A run over several hosts with one GPU each: what is divided among them, and what is not. Bytes.

By the documentation of PyTorch (FSDP, DDP) and DeepSpeed (ZeRO); none of it was measured. Activations and logits are
never divided: each host has its own batch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sparkhost.base.units import GIB
from sparkhost.tools.estimate.sizes import Shape

Sharding = Literal["ddp", "zero1", "zero2", "zero3", "fsdp"]

NCCL = int(0.45 * GIB)
"""Of a process with a peer: a start-up log of vLLM has 0.55 GiB for two GPUs, and 0.13 for one."""
BUCKET = int(5e8) * 2
"""DeepSpeed's allgather_bucket_size and reduce_bucket_size: 5e8 elements each."""
MASTER = 4
"""DeepSpeed keeps weights and moments of bf16 training in fp32: 4 bytes each."""


class Divisors(NamedTuple):
    """Each of these is held by every so manyth host."""

    weights: int = 1
    gradients: int = 1
    moments: int = 1


def divisors(sharding: Sharding | None, hosts: int) -> Divisors:
    if sharding is None or sharding == "ddp":
        return Divisors()
    if sharding == "zero1":
        return Divisors(1, 1, hosts)
    if sharding == "zero2":
        return Divisors(1, hosts, hosts)
    return Divisors(hosts, hosts, hosts)


def moments(sharding: Sharding | None, copies: float, size: int) -> float:
    """Bytes of optimizer state for a trained parameter, as `copies` of `size` bytes; DeepSpeed's have fp32 masters."""
    deepspeed = sharding is not None and sharding.startswith("zero")
    return (copies + 1) * MASTER if deepspeed and size == 2 else copies * size


def transient(sharding: Sharding, shape: Shape, trained: int) -> tuple[int, str]:
    """What comes and goes because of the peers, and why. `trained`: bytes of all gradients."""
    if sharding == "ddp":
        return trained, "gradients once more, in DDP's buckets"
    if sharding in ("zero1", "zero2"):
        return 2 * BUCKET, "DeepSpeed's two buckets of 5e8 elements"
    layer = shape.linear // max(shape.layers, 1) * 2
    table = shape.vocabulary * shape.hidden * 2
    return 2 * max(layer, table), "two gathered units, one in use and one ahead: a layer, or the embeddings"
