"""The parts of a training run's peak memory, each with the source of its figure. Bytes throughout.

A step has two peaks. In the *loss* all that the backward pass needs is there, and the logits in several copies. In the
*optimizer's step* there are no activations, but gradients and the optimizer's temporaries. The larger one counts.

"Measured" is `tests/bench/estimate_rows.json`: 44 runs of three models on an NVIDIA H100 with torch 2.11, transformers
5.17 and peft 0.21. Not on a GB10.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sparkhost.estimate.shape import Shape
from sparkhost.launcher.units import GIB, MIB

Method = Literal["sft", "dpo", "lora", "grpo"]
Loss = Literal["unknown", "inside", "outside", "fused"]

INSIDE, OUTSIDE = 12, 29
"""Bytes of an element of the logits: computed by the model itself, and by the trainer from the model's output."""
CHUNK = 1024
"""Tokens whose logits a fused loss holds at a time."""
ALLOCATOR = 1.42
"""Most that PyTorch's allocator had reserved, as a multiple of what was in use (measured: 1.00 to 1.413)."""
FITTED = 1.1
"""What is added to a figure that was fitted to totals: the allocator's part is in it, other data is not."""
PROCESS = int(1.8 * GIB)
CONTEXT = int(0.76 * GIB)
WORKSPACE = 64 * MIB


class Run(NamedTuple):
    """What is to be trained, and how."""

    method: Method
    batch: int
    """Sequences (with DPO: pairs) on the GPU at a time."""
    length: int
    """Tokens of a sequence, at most."""
    checkpointing: bool = True
    loss: Loss = "unknown"
    mixed: bool = False
    """Weights in fp32 with bf16 autocast; else weights, gradients and optimizer in bf16."""
    accumulation: int = 1
    rank: int = 64
    """Of LoRA."""
    reference: bool = True
    """Whether DPO or GRPO holds the reference model as well; not where its results were computed before."""
    vllm: float = 0.0
    """GRPO: gpu_memory_utilization of the vLLM engine on the same GPU."""

    @property
    def tokens(self) -> int:
        """In a forward pass. DPO runs chosen and rejected together."""
        return self.batch * self.length * (2 if self.method == "dpo" else 1)


class Term(NamedTuple):
    """One part of the peak."""

    name: str
    low: int
    high: int
    source: str


class Estimate(NamedTuple):
    """The peak of a run. `high` is what to plan with."""

    terms: tuple[Term, ...]
    low: int
    high: int
    peak: Literal["loss", "optimizer"]
    """In which of its two peaks the run needs `high`."""


def fixed(name: str, size: float, source: str) -> Term:
    return Term(name, int(size), int(size), source)


def weights(shape: Shape, run: Run) -> list[Term]:
    """What is there all the time on the GPU."""
    size = 4 if run.mixed and run.method != "lora" else 2
    found = [fixed("weights", shape.parameters * size, f"{size} B a parameter ({'fp32' if size == 4 else 'bf16'})")]
    if run.method in ("dpo", "grpo") and run.reference:
        found.append(fixed("reference model", shape.parameters * 2, "2 B a parameter (bf16), frozen"))
    trained, state = shape.parameters, size
    if run.method == "lora":
        trained, state = shape.adapters(run.rank), 4
        found.append(fixed("adapters", trained * 4, f"rank {run.rank} on all linear maps; peft keeps them in fp32"))
    found.append(fixed("optimizer", trained * state * 2, f"AdamW: two of {state} B a trained parameter"))
    return found


def trained(shape: Shape, run: Run) -> tuple[int, int]:
    """Trained parameters, and bytes of one."""
    if run.method == "lora":
        return shape.adapters(run.rank), 4
    return shape.parameters, 4 if run.mixed else 2


def activations(shape: Shape, run: Run) -> Term:
    """What the forward pass keeps for the backward pass."""
    size = 4 if run.mixed else 2
    if run.checkpointing:
        kept = run.tokens * shape.layers * shape.hidden * size
        return fixed("activations", kept, f"checkpointed: {size} B x hidden size, a layer and token (measured)")
    norms = 2 * shape.hidden * (4 + 2 + 2)
    attention = 4 * shape.queries + 4 * shape.keys + 4 * shape.heads
    attention += 6 * (shape.queries + shape.keys) if shape.head_norms else 0
    token = norms + attention + 8 * shape.intermediate
    if run.method == "lora":
        # Each adapter keeps its input in fp32, dropout's mask and its middle; frozen maps and norms keep less.
        token += 5 * shape.linear_inputs + 7 * 4 * run.rank - 8 * shape.hidden - 2 * shape.intermediate
        token -= 2 * (shape.queries + shape.keys) if shape.head_norms else 0
    source = f"all kept: {token} B a layer and token: inputs of maps, norms in fp32, attention, MLP (measured)"
    return fixed("activations", run.tokens * shape.layers * token, source)


def logits(shape: Shape, run: Run) -> Term:
    """The output over the vocabulary, with its copies in fp32 and their gradients."""
    elements = run.tokens * shape.vocabulary
    inside, outside = elements * INSIDE, elements * OUTSIDE
    how = {
        "inside": Term("logits", inside, inside, f"{INSIDE} B x vocabulary x tokens: loss inside the model (measured)"),
        "outside": Term(
            "logits",
            outside,
            outside,
            f"{OUTSIDE} B x vocabulary x tokens: loss by the trainer (fitted to a Spark's table)",
        ),
        "fused": fixed(
            "logits",
            min(run.tokens, CHUNK) * shape.vocabulary * INSIDE,
            f"fused loss: {CHUNK} tokens at a time (by its documentation; not measured)",
        ),
        "unknown": Term(
            "logits",
            inside,
            outside,
            f"{INSIDE} B (inside the model, measured) to {OUTSIDE} B (by the trainer, fitted) x vocabulary x tokens",
        ),
    }
    return how[run.loss]


def host(run: Run, total: int) -> list[Term]:
    """What a Spark's one memory holds besides the allocator's part."""
    found = [
        fixed("CUDA context", CONTEXT, "measured on an H100; a GB10's is not known"),
        fixed("process", PROCESS, "resident memory of Python with torch and transformers (measured on x86)"),
    ]
    if run.method == "grpo":
        found.append(fixed("vLLM", run.vllm * total, "gpu_memory_utilization x all memory: it takes what it is given"))
    return found


def estimate(shape: Shape, run: Run, total: int) -> Estimate:
    """The peak of a run on a host with `total` bytes of memory.

    Of a model that is known by its parameters only, nothing that grows with the batch is counted: `high` is then a
    lower bound as well.
    """
    always = [*weights(shape, run), fixed("workspace", WORKSPACE, "cuBLAS (measured)")]
    count, size = trained(shape, run)
    gradients = fixed("gradients", count * size, f"{size} B a trained parameter")
    optimizing = [gradients, fixed("optimizer's temporaries", count * size, "one copy of what is trained (measured)")]
    losing: list[Term] = []
    if shape.whole:
        losing = [activations(shape, run), logits(shape, run)]
        losing.append(fixed("last layer", run.tokens * shape.hidden * 8, "final norm, 8 B a hidden value (measured)"))
        if run.mixed and run.method != "lora":
            cast = shape.parameters if not run.checkpointing else shape.vocabulary * shape.hidden
            losing.append(fixed("autocast's copies", cast * 2, "bf16 copies of weights in use (measured)"))
    if run.accumulation > 1:
        losing.append(gradients._replace(source=f"{gradients.source}; kept, as steps are accumulated"))
    bases = [sum(term.low for term in [*always, *phase]) for phase in (losing, optimizing)]
    plans = [planned([*always, *phase], run.loss) for phase in (losing, optimizing)]
    peak = 0 if plans[0] >= plans[1] else 1
    phase = losing if peak == 0 else optimizing
    used = [*always, *phase]
    slack = Term(
        "allocator",
        0,
        plans[peak] - sum(term.high for term in used),
        f"reserved by PyTorch beyond what is in use: up to {ALLOCATOR - 1:.0%} (measured)"
        if run.loss != "outside"
        else f"{FITTED - 1:.0%} for other data than the fitted one's",
    )
    if slack.high < 0:
        slack = slack._replace(high=0)
    outside = host(run, total)
    more = sum(term.high for term in outside)
    return Estimate(
        (*used, slack, *outside), max(bases) + more, plans[peak] + more, "loss" if peak == 0 else "optimizer"
    )


def planned(terms: list[Term], loss: Loss) -> int:
    """What to plan with on the GPU's side: measured figures with the allocator's part, fitted ones with their own."""
    fitted = int(sum(term.high for term in terms) * FITTED)
    measured = int(sum(term.low for term in terms) * ALLOCATOR)
    return {"outside": fitted, "inside": measured, "fused": measured}.get(loss, max(fitted, measured))
