"""What `spark-estimate` says: to a person, and to a program."""

from __future__ import annotations

from sparkhost.base.units import GIB, show_size
from sparkhost.tools.estimate import serve
from sparkhost.tools.estimate.fit import Choice, Host, Row
from sparkhost.tools.estimate.load import DIRECT
from sparkhost.tools.estimate.sizes import Shape
from sparkhost.tools.estimate.terms import Run


def lines(shape: Shape, run: Run, host: Host, rows: list[Row], single: bool) -> list[str]:
    """For a person."""
    found = [
        f"{shape.name}: {shape.parameters / 1e9:.2f} billion parameters; {how(run)}",
        f"host: {show_size(host.total)}, {show_size(host.rest)} used by the rest, {show_size(host.headroom)} to stay "
        f"available: {show_size(host.room)} for the run",
    ]
    found += [f"note: {note}" for note in shape.notes]
    if single:
        peak = rows[0].estimate
        found += [f"  {span(term.low, term.high):>18}  {term.name}: {term.source}" for term in peak.terms]
        said = verdict(rows[0]) if shape.whole else "not known whether it fits" if rows[0].may else "does not fit"
        when = "" if run.method == "serve" else f", in the {peak.peak}'s phase"
        found.append(f"  {span(peak.low, peak.high):>18}  peak{when}: {said}")
        found.append(f"  {span(peak.load.low, peak.load.high):>18}  before it, the load: {peak.load.source}")
        if not shape.whole:
            why = f"{shape.kind!r}: {shape.reason}" if shape.reason else "they need the model's config.json"
            found.append(f"without activations and logits: at least this much; {why}")
        return [*found, *loaded(rows), *engine(shape, run, host)]
    found.append(f"{'sequences' if run.method == 'serve' else 'batch':>9}  {'low':>10}  {'plan':>10}")
    for row in rows:
        low, high = show_size(row.estimate.low), show_size(row.estimate.high)
        found.append(f"{row.batch:>9}  {low:>10}  {high:>10}  {verdict(row)}")
    found += [*loaded(rows), *engine(shape, run._replace(batch=best(rows)), host)]
    if run.method != "serve":
        found.append("an estimate: measure with spark-profile before a long run")
    return found


def best(rows: list[Row]) -> int:
    """The largest batch that fits, else the smallest."""
    return max((row.batch for row in rows if row.fits), default=rows[0].batch)


def how(run: Run) -> str:
    if run.method == "serve":
        return f"served by vLLM, context {run.length}, KV cache in {run.cache}"
    several = f", {run.hosts} hosts ({run.sharding}): figures for each" if run.sharding else ""
    return (
        f"{run.method}, {run.optimizer}, length {run.length} ({run.lengths}), "
        f"{'with' if run.checkpointing else 'without'} checkpointing, "
        f"{'with' if run.segments else 'without'} expandable segments{several}"
    )


def loaded(rows: list[Row]) -> list[str]:
    """A warning where the run fits, and its load only without a second copy of the weights."""
    if not any(row.may for row in rows) or rows[0].copied:
        return []
    most = show_size(rows[0].estimate.load.high)
    return [f"the load may need {most}, which does not fit: load with {DIRECT}, not onto the CPU first"]


def engine(shape: Shape, run: Run, host: Host) -> list[str]:
    """What to pass to vLLM, or what one beside GRPO has for its cache."""
    if run.method == "grpo" and shape.whole and shape.stored is not None:
        room, count = serve.beside(shape, run, host.total)
        share = f"vLLM with {run.vllm} of the memory"
        if count < run.length:
            return [f"{share}: no room for the cache of one sequence: a larger --vllm, or shorter sequences"]
        return [f"{share}: {show_size(room)} of KV cache, {count} tokens: {count // run.length} sequences at a time"]
    if run.method != "serve":
        return []
    if serve.estimate(shape, run, host.total).high > host.room:
        most = serve.longest(shape, run, host.room, host.total)
        return [f"{run.batch} sequences: {f'a context of {most} fits' if most else 'no context fits on this host now'}"]
    flags = serve.flags(shape, run, host.total)
    return [
        f"vllm serve MODEL {flags.words}",
        f"context that fits with {run.batch} sequences: {serve.longest(shape, run, host.room, host.total)}; without "
        "--kv-cache-memory-bytes vLLM takes the whole share",
    ]


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
    """For programs. `vllm`: what to pass for the largest number of sequences that fits."""
    fits = run.method == "serve" and any(row.fits for row in rows)
    flags = serve.flags(shape, run._replace(batch=best(rows)), host.total) if fits else None
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
                "load": row.estimate.load._asdict(),
                "load_with_a_copy_fits": row.copied,
                "terms": [term._asdict() for term in row.estimate.terms],
            }
            for row in rows
        ],
        "choice": choice._asdict() if choice else None,
        "vllm": flags._asdict() if flags else None,
    }
