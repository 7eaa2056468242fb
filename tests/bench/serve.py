"""The estimator of serving beside public start-up logs of vLLM. `python -m tests.bench.serve`

Prints every row of `serve_rows.json` with its error, as Markdown (docs/estimate.md).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparkhost.base.units import GIB
from sparkhost.tools.estimate import serve
from sparkhost.tools.estimate.cache import of_sequence, tokens
from sparkhost.tools.estimate.shape import parse
from sparkhost.tools.estimate.sizes import Shape
from sparkhost.tools.estimate.terms import Run
from tests.bench.estimate_more import SHAPES

ROWS: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("serve_rows.json").read_text())
H100 = int(79.18 * GIB)
SEQUENCES = 1024


def shape_of(row: dict[str, Any]) -> Shape:
    config = {**SHAPES[row["shape"]]["config"], **row.get("config", {})}
    if "quantization" in row:
        config["quantization_config"] = row["quantization"]
    return parse(config, row["shape"])


def weights(row: dict[str, Any]) -> float:
    """GiB of the weights, as counted."""
    return serve.kept(shape_of(row)) / GIB


def activations(row: dict[str, Any]) -> float:
    """GiB of vLLM's trial with its defaults on an H100."""
    return serve.activations(shape_of(row), Run("serve", SEQUENCES, serve.STEP)).high / GIB


def available(row: dict[str, Any]) -> float:
    """GiB that its share leaves for the cache. `high`: without the graphs, which that vLLM did not count."""
    own = sum(term.high for term in serve.own(shape_of(row), Run("serve", SEQUENCES, serve.STEP)))
    share: float = row.get("utilization", 0.9)
    return (H100 * share - own + serve.GRAPHS) / GIB


def count(row: dict[str, Any]) -> int:
    """Tokens that the cache holds. Several GPUs divide the heads."""
    return tokens(shape_of(row), int(row["gib"] * GIB * row.get("tp", 1)), 2)


def sequence(row: dict[str, Any]) -> float:
    """GiB of one sequence on each GPU."""
    gpus: int = row.get("tp", 1)
    return of_sequence(shape_of(row), row["length"], 2, serve.STEP) / gpus / GIB


def main() -> None:
    print("| what | model | logged | counted | error | source |\n|---|---|---|---|---|---|")
    for row in ROWS["weights"]:
        error = weights(row) / row["gib"] - 1
        print(f"| weights | {row['shape']} | {row['gib']} | {weights(row):.2f} | {error:+.1%} | {row['source']} |")
    for row in ROWS["activations"]:
        error = activations(row) / row["gib"] - 1
        print(f"| activations | {row['shape']} | {row['gib']} | {activations(row):.2f} | {error:+.1%} | the same |")
        left = available(row)
        print(f"| left | {row['shape']} | {row['available']} | {left:.2f} | {left - row['available']:+.2f} GiB | |")
    for row in ROWS["tokens"]:
        error = count(row) / row["tokens"] - 1
        print(f"| tokens | {row['shape']} | {row['tokens']} | {count(row)} | {error:+.1%} | {row['source']} |")
    for row in ROWS["sequence"]:
        error = sequence(row) / row["gib"] - 1
        print(f"| sequence | {row['shape']} | {row['gib']} | {sequence(row):.2f} | {error:+.1%} | {row['source']} |")


if __name__ == "__main__":
    main()
