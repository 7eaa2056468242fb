"""The command `spark-estimate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sparkhost import shares
from sparkhost.estimate.fit import Choice, Host, Row, choose, table
from sparkhost.estimate.fit import row as one_row
from sparkhost.estimate.optimizers import OPTIMIZERS
from sparkhost.estimate.shape import of_count, read
from sparkhost.estimate.sizes import Shape
from sparkhost.estimate.terms import BASES, Run
from sparkhost.headroom import term_below
from sparkhost.launcher.holders import meminfo
from sparkhost.launcher.units import GIB, Mistake, parse_size, show_size
from sparkhost.pipes import quiet_without_reader

PROGRAM = "spark-estimate"
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
  spark-estimate --parameters 8B --method dpo"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Estimates the peak memory of a training run, and which batch fits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("config", nargs="?", type=Path, help="a model's config.json, the directory with it, or its name")
    made.add_argument("--parameters", metavar="COUNT", help="instead of it: 600M, 1.7B; gives no figures by batch")
    made.add_argument("--method", choices=("sft", "dpo", "lora", "grpo"), default="sft", help="default: %(default)s")
    made.add_argument("--length", type=whole, default=1024, metavar="TOKENS", help="longest sequence; default 1024")
    made.add_argument("--batch", type=whole, metavar="N", help="this batch alone, with every term")
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
    made.add_argument("--lora", action="store_true", help="DPO, GRPO: with adapters")
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
    made.add_argument("--no-reference", action="store_true", help="DPO, GRPO: no reference model in memory")
    made.add_argument("--vllm", type=share, default=0.3, metavar="SHARE", help="GRPO: gpu_memory_utilization, 0 to 1")
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
    if options.lora and options.method == "sft":
        raise Mistake("--lora: is for --method dpo and grpo: use --method lora")
    adapted = options.lora or options.method == "lora"
    base = options.base or shape.base
    if adapted and not shape.whole:
        raise Mistake("--parameters: LoRA's adapters depend on the model's shape: give its config.json")
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
        length=options.length,
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
    )


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 where nothing fits; 2 for a mistake on the command line or in the config.json."""
    options = parser().parse_args(arguments)
    try:
        if (options.config is None) == (options.parameters is None):
            raise Mistake("expected a model's config.json, or --parameters COUNT; see --help")
        shape = read(options.config) if options.config else of_count(options.parameters)
        run, host = run_of(options, shape), host_of(options)
        if options.total_batch and not shape.whole:
            raise Mistake("--total-batch: which batch fits depends on the model's shape: give its config.json")
    except Mistake as mistake:
        print(f"{PROGRAM}: {mistake}", file=sys.stderr)
        return 2
    single = options.batch is not None or not shape.whole
    rows = [one_row(shape, run, host)] if single else table(shape, run, host)
    choice = choose(shape, run, host, options.total_batch) if options.total_batch else None
    if options.json:
        print(json.dumps(document(shape, run, host, rows, choice), indent=2))
    else:
        print("\n".join(lines(shape, run, host, rows, single)))
        if options.total_batch:
            print(advice(choice, options.total_batch))
    # Of a model without its shape only the negative is known.
    return 0 if any(row.fits if shape.whole else row.may for row in rows) else 1


def lines(shape: Shape, run: Run, host: Host, rows: list[Row], single: bool) -> list[str]:
    """For a person."""
    found = [
        f"{shape.name}: {shape.parameters / 1e9:.2f} billion parameters; {run.method}, {run.optimizer}, "
        f"length {run.length} ({run.lengths}), {'with' if run.checkpointing else 'without'} checkpointing, "
        f"{'with' if run.segments else 'without'} expandable segments",
        f"host: {show_size(host.total)}, {show_size(host.rest)} used by the rest, {show_size(host.headroom)} to stay "
        f"available: {show_size(host.room)} for the run",
    ]
    found += [f"note: {note}" for note in shape.notes]
    if single:
        peak = rows[0].estimate
        found += [f"  {span(term.low, term.high):>18}  {term.name}: {term.source}" for term in peak.terms]
        said = verdict(rows[0]) if shape.whole else "not known whether it fits" if rows[0].may else "does not fit"
        found.append(f"  {span(peak.low, peak.high):>18}  peak, in the {peak.peak}'s phase: {said}")
        if not shape.whole:
            found.append("without activations and logits, which need the model's config.json: at least this much")
        return found
    found.append(f"{'batch':>7}  {'low':>10}  {'plan':>10}")
    for row in rows:
        low, high = show_size(row.estimate.low), show_size(row.estimate.high)
        found.append(f"{row.batch:>7}  {low:>10}  {high:>10}  {verdict(row)}")
    found.append("an estimate: measure with spark-profile before a long run")
    return found


def span(low: int, high: int) -> str:
    return show_size(low) if show_size(low) == show_size(high) else f"{low / GIB:.1f} to {high / GIB:.1f} GiB"


def verdict(row: Row) -> str:
    if row.fits:
        return "fits"
    return "may fit: measure first" if row.may else "does not fit"


def advice(choice: Choice | None, total: int) -> str:
    if choice is None:
        return f"total batch {total}: not even one sequence fits for certain; shorter sequences, or LoRA"
    return (
        f"total batch {total}: --per_device_train_batch_size {choice.batch} --gradient_accumulation_steps "
        f"{choice.accumulation}"
    )


def document(shape: Shape, run: Run, host: Host, rows: list[Row], choice: Choice | None) -> dict[str, object]:
    """For programs."""
    return {
        "version": 1,
        "shape": shape._asdict(),
        "run": run._asdict(),
        "host": {**host._asdict(), "room": host.room},
        "complete": shape.whole,
        "rows": [
            {
                "batch": row.batch,
                "low": row.estimate.low,
                "plan": row.estimate.high,
                "fits": row.fits if shape.whole else None,
                "may_fit": row.may,
                "peak": row.estimate.peak,
                "terms": [term._asdict() for term in row.estimate.terms],
            }
            for row in rows
        ],
        "choice": choice._asdict() if choice else None,
    }
