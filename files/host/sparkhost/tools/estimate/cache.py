"""The KV cache of an engine that serves: vLLM's, by its layers. Bytes.

A layer that sees all tokens keeps them all; one with a sliding window keeps the window, and what one step computes
beside it (vLLM's SlidingWindowSpec.max_memory_usage_bytes). vLLM hands it out in blocks of 16 tokens. Held against
public start-up logs (tests/bench/serve_rows.json).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparkhost.tools.estimate.sizes import Shape

BLOCK = 16
"""Tokens of a block: vLLM's CacheConfig.DEFAULT_BLOCK_SIZE."""
EVERY: Mapping[str, int] = {"cohere2": 4, "gemma2": 2, "gemma3_text": 6, "gpt_oss": 2, "olmo3": 4}
"""Each how manyth layer sees all tokens, where the file has no `layer_types`: the classes of transformers 5.17."""
WINDOWS: Mapping[str, int] = {"cohere2": 4096, "gemma2": 4096, "gemma3_text": 4096, "gpt_oss": 128, "olmo3": 4096}
"""Their windows, where the file names none."""


def windows(kind: str, text: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """How many layers see a window only, and its tokens. Of what is not known all layers are taken to see all."""
    width = text.get("sliding_window") or WINDOWS.get(kind)
    if type(width) is not int or width <= 0:
        return 0, 0
    types = text.get("layer_types")
    if isinstance(types, list):
        return min(sum(1 for one in types if one == "sliding_attention"), layers), width
    every = text.get("sliding_window_pattern") or EVERY.get(kind)
    if kind not in EVERY or type(every) is not int or every < 2:
        return 0, 0
    return layers - layers // every, width


def of_layer(shape: Shape, size: int) -> int:
    """Bytes of a token in one layer, with `size` bytes an element."""
    return (shape.latent or 2 * shape.keys) * size


def of_sequence(shape: Shape, length: int, size: int, step: int) -> int:
    """Bytes of one sequence of `length` tokens; `step`: tokens that are computed at a time."""
    full = -(-length // BLOCK) * BLOCK
    seen = min(full, (-(-(shape.window + step) // BLOCK) + 1) * BLOCK)
    return of_layer(shape, size) * ((shape.layers - shape.windowed) * full + shape.windowed * seen)


def tokens(shape: Shape, room: int, size: int) -> int:
    """How many tokens `room` bytes hold, where every layer keeps all of them: vLLM's "GPU KV cache size"."""
    return max(room, 0) // (of_layer(shape, size) * shape.layers * BLOCK) * BLOCK
