"""The options of `spark-estimate`, and the run and the host that they ask about."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from sparkhost.base import shares
from sparkhost.base.headroom import term_below
from sparkhost.base.units import Mistake, parse_size
from sparkhost.launcher.holders import meminfo
from sparkhost.tools.estimate.fit import Host
from sparkhost.tools.estimate.optimizers import OPTIMIZERS
from sparkhost.tools.estimate.serve import ELEMENT
from sparkhost.tools.estimate.shard import Sharding
from sparkhost.tools.estimate.sizes import Shape
from sparkhost.tools.estimate.terms import BASES, Method, Run

PROGRAM = "spark-estimate"
METHODS: tuple[Method, ...] = get_args(Method)
LENGTH, CONTEXT = 1024, 8192
MOST = 64
"""Hosts."""
EPILOG = """\
Two figures are given: "low" is what is in use, "plan" what to plan with: it has what PyTorch's allocator may reserve
beyond that, and the dearer way of computing the loss where --loss does not say which. "fits" is about "plan".
Lengths that vary are assumed, and PYTORCH_ALLOC_CONF=expandable_segments:True, which spark-run sets for a PyTorch
that knows it: without, PyTorch may reserve a multiple (--allocator default).
Where each figure comes from, and how far off it was: docs/estimate.md. An estimate is no measurement: spark-profile.
Exit code: 0, 1 where nothing fits, 2 for a mistake on the command line or in the config.json.

examples:
  spark-estimate ~/models/Qwen3-0.6B --method sft --length 1024 --total-batch 32
  spark-estimate Qwen/Qwen3-8B --method lora --base nf4 --optimizer paged-adamw-8bit
  spark-estimate config.json --method lora --rank 16 --targets attention --batch 8 --loss inside
  spark-estimate --parameters 8B --method dpo
  spark-estimate Qwen/Qwen3-32B --method sft --hosts 4 --sharding fsdp --batch 1
  spark-estimate Qwen/Qwen3-8B --method serve --length 32768 --batch 4"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Estimates the peak memory of training or serving a model, and which batch fits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("config", nargs="?", type=Path, help="a model's config.json, the directory with it, or its name")
    made.add_argument("--parameters", metavar="COUNT", help="instead of it: 600M, 1.7B; gives no figures by batch")
    made.add_argument("--method", choices=METHODS, default="sft", help="serve: with vLLM; default: %(default)s")
    made.add_argument(
        "--length", type=whole, metavar="TOKENS", help="longest sequence; default 1024; serve: the context, 8192"
    )
    made.add_argument("--batch", type=whole, metavar="N", help="this batch alone, with every term; serve: sequences")
    made.add_argument("--total-batch", type=whole, metavar="N", help="say which batch and accumulation make N")
    made.add_argument(
        "--loss",
        choices=("inside", "outside", "fused"),
        default="unknown",
        help="inside: the model computes it (labels= is given); outside: the trainer, from all logits; fused: never "
        "all logits at once; default: not known, so both of the first two",
    )
    made.add_argument("--no-checkpointing", action="store_true", help="without gradient checkpointing")
    made.add_argument("--mixed", action="store_true", help="weights in fp32 with bf16 autocast; default: all in bf16")
    made.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="adamw-fused", help="default: %(default)s")
    made.add_argument("--lora", action="store_true", help="DPO, KTO, ORPO, GRPO: with adapters")
    made.add_argument("--rank", type=whole, default=64, help="of LoRA; default: %(default)s")
    made.add_argument("--targets", choices=("all", "attention"), default="all", help="linear maps that LoRA is on")
    made.add_argument("--base", choices=tuple(BASES), help="LoRA: its frozen weights; default: as the file says")
    made.add_argument(
        "--lengths",
        choices=("varied", "constant", "packed"),
        default="varied",
        help="of the steps; constant: all padded to --length, packed: filled up to it; default: %(default)s",
    )
    made.add_argument(
        "--allocator",
        choices=("expandable", "default"),
        default="expandable",
        help="PyTorch's; expandable: with expandable_segments:True (the default)",
    )
    made.add_argument("--no-reference", action="store_true", help="DPO, KTO, GRPO: no reference model in memory")
    made.add_argument("--vllm", type=share, default=0.3, metavar="SHARE", help="GRPO: gpu_memory_utilization, 0 to 1")
    made.add_argument("--cache", choices=tuple(ELEMENT), default="bf16", help="serve, GRPO: the KV cache is held in")
    made.add_argument("--hosts", type=whole, default=1, metavar="N", help="of one GPU each, that share the run")
    made.add_argument("--sharding", choices=get_args(Sharding), help="how they share it; default with --hosts: fsdp")
    made.add_argument("--compile", action="store_true", help="with torch.compile")
    made.add_argument("--memory", metavar="SIZE", help="of the host, such as 60G; default: this one's")
    made.add_argument("--rest", metavar="SIZE", help="what everything else uses; default: what is used now")
    made.add_argument(
        "--headroom",
        metavar="SIZE",
        help="must stay available; default: this host's term_below; with --memory 2/15 of it",
    )
    made.add_argument("--json", action="store_true", help="for programs; sizes in bytes")
    return made


def whole(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10**7:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number above 0")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a share of the memory from 0 to 1, such as 0.3")
    return value


def size(name: str, text: str) -> int:
    try:
        return parse_size(text)
    except Mistake as mistake:
        raise Mistake(f"{name}: {mistake}") from None


def host_of(options: argparse.Namespace) -> Host:
    """The memory that counts: as told, else this machine's."""
    memory = meminfo()
    total = size("--memory", options.memory) if options.memory else memory["MemTotal"]
    rest = size("--rest", options.rest) if options.rest else memory["MemTotal"] - memory["MemAvailable"]
    # Of another host what this one keeps free says nothing.
    usual = shares.part(total, *shares.TERM_BELOW) if options.memory else term_below()
    return Host(total, rest, size("--headroom", options.headroom) if options.headroom else usual)


def run_of(options: argparse.Namespace, shape: Shape) -> Run:
    """What is asked for.

    Raises:
        Mistake: options that do not go together, or of whose memory nothing is known.
    """
    if options.method == "serve":
        return serving(options, shape)
    if options.lora and options.method == "sft":
        raise Mistake("--lora: is for --method dpo, kto, orpo and grpo: use --method lora")
    if options.hosts > MOST:
        raise Mistake(f"--hosts: got {options.hosts}, expected {MOST} at most")
    if options.sharding and options.hosts == 1:
        raise Mistake("--sharding: is for several hosts: add --hosts N")
    adapted = options.lora or options.method == "lora"
    base = options.base or shape.base
    if adapted and not shape.whole:
        raise Mistake(lacking(shape, "LoRA's adapters depend"))
    if base != "bf16" and not adapted:
        raise Mistake(f"{base} weights are trained with adapters only: add --method lora or --lora, or --base bf16")
    if adapted and options.mixed:
        raise Mistake("--mixed: LoRA's frozen weights are not held in fp32: leave it out")
    if adapted and options.targets == "all" and not shape.mlp:
        raise Mistake(f"--targets: adapters on the experts of {shape.kind} are not known: use --targets attention")
    if options.no_checkpointing and shape.whole and not shape.plain:
        raise Mistake(f"--no-checkpointing: what {shape.kind} keeps was not measured: measure with spark-profile")
    return Run(
        method=options.method,
        batch=options.batch or 1,
        length=options.length or LENGTH,
        checkpointing=not options.no_checkpointing,
        loss=options.loss,
        mixed=options.mixed,
        rank=options.rank,
        reference=not options.no_reference,
        vllm=options.vllm,
        lora=options.lora,
        targets=options.targets,
        base=base,
        optimizer=options.optimizer,
        lengths="varied" if options.lengths == "varied" else "constant",
        segments=options.allocator == "expandable",
        cache=options.cache,
        hosts=options.hosts,
        sharding=(options.sharding or "fsdp") if options.hosts > 1 else None,
        compiled=options.compile,
    )


def lacking(shape: Shape, what: str) -> str:
    """A refusal of what needs more than the number of parameters."""
    if shape.reason:
        return f"{shape.name}: {what} on more than is known of {shape.kind!r}: {shape.reason}"
    return f"--parameters: {what} on the model's shape: give its config.json"


def serving(options: argparse.Namespace, shape: Shape) -> Run:
    """A server, which has no trainer's options.

    Raises:
        Mistake: one of them, or a model without its shape.
    """
    if not shape.whole:
        raise Mistake(lacking(shape, "the KV cache depends"))
    for name in ("lora", "mixed", "no_checkpointing", "total_batch", "compile", "sharding"):
        if getattr(options, name):
            raise Mistake(f"--{name.replace('_', '-')}: is of no meaning with --method serve: leave it out")
    if options.hosts > 1:
        raise Mistake("--hosts: a server over several hosts is not estimated: leave it out")
    length = options.length or min(CONTEXT, shape.longest or CONTEXT)
    if 0 < shape.longest < length:
        raise Mistake(f"--length: got {length}, expected {shape.longest} at most: the model was made for that")
    return Run("serve", options.batch or 1, length, cache=options.cache)
