"""The estimator beside what people use instead, on the same runs. `python -m tests.bench.estimate`

Two sets: a table that was published for a DGX Spark (peaks of the whole host), and 44 runs on one NVIDIA H100
(`estimate_gpu.py`; what PyTorch had in use). Prints both as Markdown. More models: `estimate_more.py`.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.base.units import GIB
from sparkhost.tools.estimate.shape import parse
from sparkhost.tools.estimate.sizes import Shape
from sparkhost.tools.estimate.terms import CONTEXT, PROCESS, Method, Run, estimate
from tests.bench.model_shapes import SHAPES

ROWS = Path(__file__).with_name("estimate_rows.json")


class Published(NamedTuple):
    """A row of the README of github.com/natolambert/dgx-spark-setup (2026-01-14), Qwen3-0.6B, length 1024."""

    method: Method
    batch: int
    peak: float
    """GiB, although the table says GB: its script divides kB by 1024 twice."""


PUBLISHED = (
    Published("sft", 2, 21),
    Published("sft", 4, 29),
    Published("sft", 8, 47),
    Published("sft", 16, 81),
    Published("dpo", 2, 24),
    Published("dpo", 4, 27),
    Published("dpo", 8, 62),
)
REST = 6.4
"""GiB that the rest of that host used: what is left of the SFT rows, not measured."""


def shape_of(name: str) -> Shape:
    return parse(SHAPES[name], name)


def published(row: Published) -> tuple[float, float, float]:
    """The estimator's low, fitted and plan figure of a published row, GiB. That DPO run kept no reference model."""
    shape = shape_of("Qwen3-0.6B")
    run = Run(row.method, row.batch, 1024, reference=False)
    unknown, outside = (estimate(shape, run._replace(loss=loss), 0) for loss in ("unknown", "outside"))
    return tuple(value / GIB + REST for value in (unknown.low, outside.low, unknown.high))  # type: ignore[return-value]


def measured() -> list[dict[str, Any]]:
    return list(json.loads(ROWS.read_text())["rows"])


def run_of(row: dict[str, Any]) -> Run:
    """The run that a row was measured with."""
    mixed = row["method"] == "sft-mixed"
    return Run(
        method="sft" if mixed else row["method"],
        batch=row["batch"],
        length=row["length"],
        checkpointing=row["checkpointing"],
        loss="inside",
        mixed=mixed,
        accumulation=row["accumulation"],
        optimizer="adamw",
        lengths="constant",
        segments=False,
    )


def on_gpu(row: dict[str, Any]) -> tuple[float, float]:
    """The estimator's low and plan figure of a measured row, GPU side, bytes."""
    found = estimate(shape_of(row["shape"]), run_of(row), 0)
    return found.low - CONTEXT - PROCESS, found.high - CONTEXT - PROCESS


def rule_of_thumb(method: str, billions: float) -> float:
    """The README's formula, GB (10^9): 6 x parameters, 1.3 times that for DPO; it gives no figure for activations."""
    return 6 * billions * (1.3 if method == "dpo" else 1)


def accelerate(billions: float) -> float:
    """What `accelerate estimate-memory` shows for training in bf16 with Adam, GB: two fp32 moments, "batch size 1".

    By its rule (accelerate, commands/estimate.py, estimate_training_usage): the largest of model 4, gradients 6 and
    optimizer 8 bytes a parameter. The package itself was not run.
    """
    return 8 * billions


def main() -> None:
    billions = shape_of("Qwen3-0.6B").parameters / 1e9
    print("| method | batch | published | low | `--loss outside` | error | plan | 6 x parameters | accelerate |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in PUBLISHED:
        low, fitted, plan = published(row)
        error = fitted / row.peak - 1
        others = [value * 1e9 / GIB + REST for value in (rule_of_thumb(row.method, billions), accelerate(billions))]
        cells = [f"{value:.1f} ({value / row.peak - 1:+.0%})" for value in others]
        print(
            f"| {row.method} | {row.batch} | {row.peak:.0f} | {low:.1f} | {fitted:.1f} | {error:+.1%} | "
            f"{plan:.1f} | {cells[0]} | {cells[1]} |"
        )
    print("\n| runs on the H100 | number | in use: largest error | reserved: plan less than it | accelerate: errors |")
    print("|---|---|---|---|---|")
    groups: dict[str, list[dict[str, Any]]] = {}
    for found in measured():
        groups.setdefault(f"{found['shape']}, {found['method']}", []).append(found)
    for name, rows in groups.items():
        errors = [abs(on_gpu(row)[0] / row["allocated"] - 1) for row in rows]
        short = sum(on_gpu(row)[1] < row["reserved"] for row in rows)
        theirs = [accelerate(row["parameters"] / 1e9) * 1e9 / row["allocated"] - 1 for row in rows]
        print(
            f"| {name} | {len(rows)} | {max(errors):.1%} | {short} | {min(theirs):+.0%} to {max(theirs):+.0%}, "
            f"median {statistics.median(theirs):+.0%} |"
        )


if __name__ == "__main__":
    main()
