"""What vLLM needs to serve a model, and what to pass to it. Bytes.

Left alone vLLM takes its share of the whole memory and makes a KV cache of what its profile leaves. On a Spark that
share is of everybody's memory, and page cache of the load is mistaken for vLLM's own (NVIDIA/xr-ai#462). So the cache
is counted here and passed as `--kv-cache-memory-bytes`; `--gpu-memory-utilization` then says only what must be free at
the start.

Figures of activations, graphs and the rest are of public start-up logs on an H100 (tests/bench/serve_rows.json).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sparkhost.base.units import GIB, Mistake
from sparkhost.tools.estimate.cache import of_sequence, tokens
from sparkhost.tools.estimate.load import SOURCE, load
from sparkhost.tools.estimate.sizes import Shape
from sparkhost.tools.estimate.terms import CONTEXT, PROCESS, Estimate, Run, Term, fixed

STEP = 8192
"""Tokens that vLLM computes at a time: its default for a server on a GPU of 70 GiB or more."""
SAMPLER = 38.3
"""Bytes of an element of sequences x vocabulary: the warm-up of PyTorch's sampler (five logs, 38.2 to 38.3)."""
HIDDEN = 2.56
"""Bytes of an element of tokens x hidden size beside it (the same logs: models that differ in nothing else)."""
GRAPHS = int(1.1 * GIB)
"""CUDA graphs, at most: six logs, up to 1.03 GiB. None with --enforce-eager."""
REST = int(0.15 * GIB)
"""Not PyTorch's: five logs of one GPU, 0.13 and 0.14 GiB."""
ROUNDING = 1.02
"""Scales and alignment of quantised weights: eleven logs were up to 0.5 % above the count."""
ELEMENT = {"bf16": 2, "fp8": 1}


class Flags(NamedTuple):
    """What to pass to `vllm serve` on this host now."""

    kv_cache_memory_bytes: int
    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int
    kv_cache_dtype: str

    @property
    def words(self) -> str:
        found = (
            f"--max-model-len {self.max_model_len} --max-num-seqs {self.max_num_seqs} "
            f"--kv-cache-memory-bytes {self.kv_cache_memory_bytes} "
            f"--gpu-memory-utilization {self.gpu_memory_utilization:.2f}"
        )
        return found + (f" --kv-cache-dtype {self.kv_cache_dtype}" if self.kv_cache_dtype != "bf16" else "")


def kept(shape: Shape) -> int:
    """The weights as the file has them.

    Raises:
        Mistake: their format is not known, and no index says how large they are.
    """
    if shape.stored is None:
        raise Mistake(
            f"{shape.name}: quantization_config: its bytes are not known: put the model's model.safetensors.index.json "
            "beside its config.json"
        )
    return shape.stored


def activations(shape: Shape, run: Run) -> Term:
    """The peak of vLLM's own trial: a full step, or the sampler with all sequences."""
    step = min(STEP, max(run.batch * run.length, run.batch))
    wide = max(shape.intermediate, shape.queries + 2 * shape.keys)
    forward = int(step * (6 * wide + 8 * shape.hidden))
    sampler = int(run.batch * shape.vocabulary * SAMPLER + step * shape.hidden * HIDDEN)
    low = int(run.batch * shape.vocabulary * 8 + step * shape.hidden * HIDDEN)
    source = f"sampler: {SAMPLER} B x vocabulary, a sequence (logs); a step of {step} tokens (assumed)"
    return Term("activations", low, max(forward, sampler), source)


def own(shape: Shape, run: Run) -> list[Term]:
    """What vLLM counts as its own, without the cache."""
    size = kept(shape)
    each = size / shape.parameters
    return [
        Term("weights", size, int(size * ROUNDING), f"{each:.2f} B a parameter, as in the file; {ROUNDING} x at most"),
        activations(shape, run),
        Term("CUDA graphs", 0, GRAPHS, "up to 1.03 GiB (logs); none with --enforce-eager"),
        fixed("rest of vLLM", REST, "0.14 GiB (logs of an H100)"),
    ]


def cache(shape: Shape, run: Run) -> Term:
    size = ELEMENT[run.cache]
    one = of_sequence(shape, run.length, size, min(STEP, run.length))
    what = (
        f"{one / run.length / 1024:.0f} KiB a token" if not shape.windowed else f"{shape.windowed} layers have a window"
    )
    return fixed("KV cache", run.batch * one, f"{run.batch} x {run.length} tokens in {run.cache}: {what}")


def estimate(shape: Shape, run: Run, total: int) -> Estimate:
    """What a server of `run.batch` sequences of `run.length` tokens needs, on a host with `total` bytes.

    Raises:
        Mistake: the weights' format is not known.
    """
    found = [
        *own(shape, run),
        cache(shape, run),
        fixed("CUDA context", CONTEXT, "measured on an H100; a GB10's is not known"),
        fixed("host's side", 2 * PROCESS, "API server and engine, each as a training process (measured on x86)"),
    ]
    low, high = sum(term.low for term in found), sum(term.high for term in found)
    outside = CONTEXT + 2 * PROCESS
    once, twice = (size + outside for size in load(shape, kept(shape)))
    return Estimate(tuple(found), low, high, "serving", Term("load", once, twice, SOURCE))


def flags(shape: Shape, run: Run, total: int) -> Flags:
    """What to pass, so that vLLM takes what was counted and no more."""
    need = cache(shape, run).high
    all_own = sum(term.high for term in own(shape, run)) + need
    return Flags(need, min(math.ceil(all_own / total * 100) / 100, 1.0), run.length, run.batch, run.cache)


def longest(shape: Shape, run: Run, room: int, total: int) -> int:
    """The longest context, in steps of 1024 tokens, with which as many sequences still fit; 0 where none does."""
    most = shape.longest or 1 << 20
    low, high = 0, most // 1024
    while low < high:
        middle = (low + high + 1) // 2
        fits = estimate(shape, run._replace(length=middle * 1024), total).high <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * 1024


def beside(shape: Shape, run: Run, total: int) -> tuple[int, int]:
    """Bytes and tokens of the KV cache of a vLLM that trains beside GRPO; negative where its share holds no cache."""
    served = run._replace(batch=max(run.batch, 1))
    room = int(run.vllm * total) - sum(term.high for term in own(shape, served))
    return room, tokens(shape, room, ELEMENT[run.cache]) if shape.whole else 0
