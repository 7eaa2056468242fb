"""The estimator beside 40 public models and 54 runs on an NVIDIA H200. `python -m tests.bench.estimate_more`

`estimate_shapes.json`: sizes of the models, and the parameters that transformers 5.17 counts once it has built them
on torch's meta device. `estimate_rows_h200.json`: peaks with random weights; those of skewed lengths were printed to
a tenth of a GiB. Prints every row with its error, as Markdown (docs/estimate.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparkhost.base.units import GIB, Mistake
from sparkhost.tools.estimate.shape import parse
from sparkhost.tools.estimate.sizes import Shape
from sparkhost.tools.estimate.terms import CONTEXT, PROCESS, Run, estimate
from tests.bench import estimate as h100

HERE = Path(__file__).parent
SHAPES: dict[str, dict[str, Any]] = json.loads((HERE / "estimate_shapes.json").read_text())
ROWS: list[dict[str, Any]] = json.loads((HERE / "estimate_rows_h200.json").read_text())["rows"]
ASKED = ("method", "batch", "length", "optimizer", "lengths", "segments", "checkpointing", "rank", "targets", "lora")


def shape_of(name: str) -> Shape:
    return parse(SHAPES[name]["config"], name)


def trained_part(name: str) -> Shape:
    """The decoder alone: the runs were of no images, and bitsandbytes was not in them."""
    config = SHAPES[name]["config"]
    return parse({key: value for key, value in config.items() if key != "quantization_config"}, name)


def run_of(row: dict[str, Any]) -> Run:
    return Run(loss="inside", **{key: row[key] for key in ASKED if key in row})


def on_gpu(shape: Shape, run: Run) -> tuple[int, int]:
    """Low and plan on the GPU's side, bytes."""
    found = estimate(shape, run, 0)
    return found.low - CONTEXT - PROCESS, found.high - CONTEXT - PROCESS


def known() -> list[dict[str, Any]]:
    """The rows of models and options that are not refused."""
    found = []
    for row in ROWS:
        try:
            shape = trained_part(row["shape"])
        except Mistake:
            continue
        if shape.whole and (row["checkpointing"] or shape.plain):
            found.append(row)
    return found


def words(row: dict[str, Any]) -> str:
    """How a row was run."""
    name = f"{row['method']}{' + LoRA' if row.get('lora') else ''}, {row['optimizer']}"
    if row["method"] == "lora" or row.get("lora"):
        name += f", r{row.get('rank', 64)} {row.get('targets', 'all')}"
    return name + ("" if row["checkpointing"] else ", no checkpointing")


def cells(row: dict[str, Any]) -> str:
    how = f"| {row['shape']} | {words(row)} | {row['batch']} x {row['length']} | {row['lengths']} | "
    how += f"{'expandable' if row['segments'] else 'default'} | {row['allocated'] / GIB:.1f} | "
    if row not in known():
        return f"{how} refused | {row['reserved'] / GIB:.1f} | |"
    low, plan = on_gpu(trained_part(row["shape"]), run_of(row))
    return f"{how}{low / row['allocated'] - 1:+.1%} | {row['reserved'] / GIB:.1f} | {plan / row['reserved'] - 1:+.1%} |"


def main() -> None:
    print("| model | parameters | counted | error |\n|---|---|---|---|")
    for name, found in SHAPES.items():
        true = found["parameters"]
        try:
            ours = shape_of(name).parameters
            print(f"| {name} | {true / 1e9:.3f} B | {ours / 1e9:.3f} B | {ours / true - 1:+.2%} |")
        except Mistake:
            print(f"| {name} | {true / 1e9:.3f} B | refused | |")
    head = "| model | run | batch | lengths | allocator | in use | low | reserved | plan |"
    print(f"\n{head}\n|---|---|---|---|---|---|---|---|---|")
    print("\n".join(cells(row) for row in ROWS))
    errors = [h100.on_gpu(row)[1] / row["reserved"] - 1 for row in h100.measured()]
    print(f"\nplan over reserved, {len(errors)} runs on the H100: {min(errors):+.1%} to {max(errors):+.1%}")


if __name__ == "__main__":
    main()
