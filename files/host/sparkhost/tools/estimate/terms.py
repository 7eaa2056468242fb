"""The parts of a training run's peak memory, each with the source of its figure. Bytes throughout.

A step has two peaks. In the *loss* all that the backward pass needs is there, and the logits in several copies. In the
*optimizer's step* there are no activations, but gradients and the optimizer's temporaries. The larger one counts.

"Measured" is `tests/bench/estimate_rows.json`: 44 runs of three models on an NVIDIA H100, and others of more models on
an H200 (`estimate_rows_h200.json`), with torch 2.11, transformers 5.17 and peft 0.21. Not on a GB10.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sparkhost.base.units import GIB, MIB
from sparkhost.tools.estimate import shard
from sparkhost.tools.estimate.allocator import Lengths, Parts, slack
from sparkhost.tools.estimate.load import SOURCE, load
from sparkhost.tools.estimate.optimizers import OPTIMIZERS, Optimizer
from sparkhost.tools.estimate.shard import Sharding
from sparkhost.tools.estimate.sizes import Base, Shape, Targets

Method = Literal["sft", "dpo", "kto", "orpo", "lora", "grpo", "serve"]
Cache = Literal["bf16", "fp8"]
Loss = Literal["unknown", "inside", "outside", "fused"]

INSIDE, OUTSIDE = 12, 29
"""Bytes of an element of the logits: computed by the model itself, and by the trainer from the model's output."""
CHUNK = 1024
"""Tokens whose logits a fused loss holds at a time."""
SOFTCAP = 2
"""More of them where a tanh keeps its output (measured: Gemma 2)."""
BASES: dict[Base, float] = {"bf16": 2.0, "nf4": 0.5 + 0.0625, "int8": 1.0}
"""Bytes of a frozen parameter; nf4 with one fp32 scale for 64 values (bitsandbytes' documentation, not measured)."""
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
    lora: bool = False
    """Adapters with DPO or GRPO, too; the method "lora" always has them."""
    targets: Targets = "all"
    """Linear maps that LoRA is on."""
    base: Base = "bf16"
    """What LoRA's frozen weights are held in."""
    optimizer: Optimizer = "adamw-fused"
    lengths: Lengths = "varied"
    """Of the steps: packed ones and those padded to the full length are constant."""
    segments: bool = True
    """Whether PyTorch's allocator is told `expandable_segments:True`, as spark-run does."""
    cache: Cache = "bf16"
    """Of an engine that serves or generates: what its KV cache is held in."""
    hosts: int = 1
    """With one GPU each."""
    sharding: Sharding | None = None
    """How several hosts share the work."""
    compiled: bool = False
    """With torch.compile."""

    @property
    def adapted(self) -> bool:
        """Whether adapters are trained instead of the model."""
        return self.lora or self.method == "lora"

    @property
    def tokens(self) -> int:
        """In a forward pass. DPO and ORPO run chosen and rejected together."""
        return self.batch * self.length * (2 if self.method in ("dpo", "orpo") else 1)

    @property
    def referred(self) -> bool:
        """Whether a reference model is held: adapters are switched off for it instead, and ORPO has none."""
        return self.method in ("dpo", "kto", "grpo") and self.reference and not self.adapted


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
    peak: Literal["loss", "optimizer", "serving"]
    """In which of its two peaks the run needs `high`."""
    load: Term
    """Before it: the load of the weights. Its `high` is with a second copy of them."""


def fixed(name: str, size: float, source: str) -> Term:
    return Term(name, int(size), int(size), source)


def weights(shape: Shape, run: Run) -> list[Term]:
    """What is there all the time on the GPU."""
    size = 4 if run.mixed and not run.adapted else 2
    parts = shard.divisors(run.sharding, run.hosts)
    held = shape.parameters * size
    found = [fixed("weights", held, f"{size} B a parameter ({'fp32' if size == 4 else 'bf16'})")]
    if run.adapted and run.base != "bf16":
        # prepare_model_for_kbit_training takes whatever is not quantised to fp32 (peft's utils/other.py).
        frozen = shape.linear * BASES[run.base] + (shape.parameters - shape.linear) * 4
        source = f"{BASES[run.base]} B for linear maps in {run.base}, 4 B for the others: fp32 (by documentation)"
        found = [fixed("weights", frozen, source)]
    if run.referred:
        found.append(fixed("reference model", shape.parameters * 2, "2 B a parameter (bf16), frozen"))
    found = [divided(term, parts.weights) for term in found]
    count, state = trained(shape, run)
    if run.adapted:
        maps = "all linear maps" if run.targets == "all" else "the maps of the attention"
        found.append(fixed("adapters", count * state, f"rank {run.rank} on {maps}; peft keeps them in fp32"))
    kept = OPTIMIZERS[run.optimizer]
    moments = count * (shard.moments(run.sharding, kept.copies, state) + kept.more)
    found.append(divided(fixed("optimizer", moments, f"{run.optimizer}: {kept.source}"), parts.moments))
    return found


def divided(term: Term, hosts: int) -> Term:
    """One host's part."""
    if hosts == 1:
        return term
    return fixed(term.name, term.high / hosts, f"1/{hosts} of {term.source}")


def trained(shape: Shape, run: Run) -> tuple[int, int]:
    """Trained parameters, and bytes of one."""
    if run.adapted:
        return shape.adapters(run.rank, run.targets), 4
    return shape.parameters, 4 if run.mixed else 2


def activations(shape: Shape, run: Run) -> Term:
    """What the forward pass keeps for the backward pass."""
    size = 4 if run.mixed and not run.adapted else 2
    if run.checkpointing:
        kept = run.tokens * shape.layers * shape.hidden * size
        return fixed("activations", kept, f"checkpointed: {size} B x hidden size, a layer and token (measured)")
    norms = 2 * shape.hidden * (4 + 2 + 2)
    attention = 4 * shape.queries + 4 * shape.keys + 4 * shape.heads
    attention += 6 * (shape.queries + shape.keys) if shape.head_norms else 0
    token = norms + attention + 8 * shape.intermediate
    if run.adapted:
        # Each adapter keeps its input in fp32, dropout's mask and its middle; frozen maps and norms keep less.
        maps = shape.attention if run.targets == "attention" else (*shape.attention, *shape.mlp)
        token += (
            5 * sum(inner for inner, _ in maps) + len(maps) * 4 * run.rank - 8 * shape.hidden - 2 * shape.intermediate
        )
        token -= 2 * (shape.queries + shape.keys) if shape.head_norms else 0
    source = f"all kept: {token} B a layer and token: inputs of maps, norms in fp32, attention, MLP (measured)"
    return fixed("activations", run.tokens * shape.layers * token, source)


def logits(shape: Shape, run: Run) -> Term:
    """The output over the vocabulary, with its copies in fp32 and their gradients."""
    elements = run.tokens * shape.vocabulary
    each = INSIDE + (SOFTCAP if shape.softcap else 0)
    inside, outside = elements * each, elements * OUTSIDE
    how = {
        "inside": Term("logits", inside, inside, f"{each} B x vocabulary x tokens: loss inside the model (measured)"),
        "outside": Term(
            "logits",
            outside,
            outside,
            f"{OUTSIDE} B x vocabulary x tokens: loss by the trainer (fitted to a Spark's table)",
        ),
        "fused": fixed(
            "logits",
            min(run.tokens, CHUNK) * shape.vocabulary * each,
            f"fused loss: {CHUNK} tokens at a time (by its documentation; not measured)",
        ),
        "unknown": Term(
            "logits",
            inside,
            outside,
            f"{each} B (inside the model, measured) to {OUTSIDE} B (by the trainer, fitted) x vocabulary x tokens",
        ),
    }
    return how[run.loss]


def host(run: Run, total: int) -> list[Term]:
    """What a Spark's one memory holds besides the allocator's part."""
    found = [
        fixed("CUDA context", CONTEXT, "measured on an H100; a GB10's is not known"),
        fixed("process", PROCESS, "resident memory of Python with torch and transformers (measured on x86)"),
    ]
    if run.compiled:
        found.append(Term("compile workers", 0, PROCESS, "torch.compile's processes (assumed: as one more with torch)"))
    if run.method == "grpo":
        found.append(fixed("vLLM", run.vllm * total, "gpu_memory_utilization x all memory: it takes what it is given"))
    return found


def estimate(shape: Shape, run: Run, total: int) -> Estimate:
    """The peak of a run on a host with `total` bytes of memory.

    Of a model that is known by its parameters only, nothing that grows with the batch is counted: `high` is then a
    lower bound as well.
    """
    resident = weights(shape, run)
    always = [*resident, fixed("workspace", WORKSPACE, "cuBLAS (measured)")]
    count, size = trained(shape, run)
    parts = shard.divisors(run.sharding, run.hosts)
    if run.sharding:
        exchanged, why = shard.transient(run.sharding, shape, count * size)
        always += [fixed("exchange", exchanged, why), fixed("NCCL", shard.NCCL, "a log of two GPUs; not divided")]
    gradients = divided(fixed("gradients", count * size, f"{size} B a trained parameter"), parts.gradients)
    temporary = count * size * OPTIMIZERS[run.optimizer].temporaries / parts.moments
    optimizing = [gradients, fixed("optimizer's temporaries", temporary, OPTIMIZERS[run.optimizer].during)]
    losing: list[Term] = []
    if shape.whole:
        losing = [activations(shape, run), logits(shape, run)]
        losing.append(fixed("last layer", run.tokens * shape.hidden * 8, "final norm, 8 B a hidden value (measured)"))
        if run.method == "kto":
            passed = run.tokens * shape.vocabulary * 2
            losing.append(Term("KL pass", 0, passed, "logits without gradients beside the others (TRL; assumed)"))
        if run.mixed and not run.adapted:
            cast = shape.parameters if not run.checkpointing else shape.vocabulary * shape.hidden
            losing.append(fixed("autocast's copies", cast * 2, "bf16 copies of weights in use (measured)"))
    if run.accumulation > 1:
        losing.append(gradients._replace(source=f"{gradients.source}; kept, as steps are accumulated"))
    static = sum(term.low for term in resident)
    state = next(term.low for term in resident if term.name == "optimizer")
    loss = sum(term.low for term in losing if term.name != "gradients")
    phases = ([*always, *losing], [*always, *optimizing])
    low = max(sum(term.low for term in phase) for phase in phases)
    high = max(sum(term.high for term in phase) for phase in phases)
    beyond = slack(Parts(loss, low - static, state, gradients.low, run.checkpointing), run.lengths, run.segments)
    plan = planned(run, static, (low, high), beyond)
    peak = 0 if sum(term.high for term in phases[0]) == high else 1
    name = "expandable_segments" if run.segments else "the default allocator"
    outside = host(run, total)
    peaks = sum(term.low for term in phases[peak])
    # "low" is the larger phase's; where that is the other phase, this term has the difference.
    slacks = Term("allocator", low - peaks, plan - high, f"reserved beyond: {name}, {run.lengths} lengths (measured)")
    held = sum(term.low for term in resident if term.name in ("weights", "reference model"))
    once, twice = (size + CONTEXT + PROCESS for size in load(shape, held, run.hosts))
    return Estimate(
        (*phases[peak], slacks, *outside),
        low + sum(term.low for term in outside),
        plan + sum(term.high for term in outside),
        "loss" if peak == 0 else "optimizer",
        Term("load", once, twice, SOURCE),
    )


def planned(run: Run, static: int, peaks: tuple[int, int], beyond: int) -> int:
    """What to plan with on the GPU's side.

    `peaks`: in use, with the loss inside the model and with that which was asked for. `beyond`: the allocator's share.
    The figure of a loss outside was fitted to totals of runs with expandable segments: their share is in it.
    """
    low, high = peaks
    fitted = static + int((high - static) * FITTED)
    if run.loss in ("inside", "fused"):
        return high + beyond
    if run.loss == "outside":
        return fitted if run.segments else high + beyond
    return max(fitted, low + beyond)
