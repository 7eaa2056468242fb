"""Parameters of the vision towers that stand beside a decoder, projector included.

Counted by the towers' own keys, and held against models that transformers 5.17 built on the meta device
(tests/bench/estimate_shapes.json).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Number = Callable[[str], int]


def blocks(hidden: int, intermediate: int, layers: int) -> int:
    """Plain transformer layers with biases: four maps, an MLP of two, two LayerNorms."""
    attention = 4 * (hidden * hidden + hidden)
    return layers * (attention + 2 * hidden * intermediate + intermediate + 5 * hidden)


def siglip(number: Number, text: int) -> int:
    """Gemma 3: SigLIP without a head, a projection and its norm."""
    hidden, patch = number("hidden_size"), number("patch_size")
    places = (number("image_size") // patch) ** 2
    found = 3 * patch * patch * hidden + hidden + places * hidden + 2 * hidden
    found += blocks(hidden, number("intermediate_size"), number("num_hidden_layers"))
    return found + hidden * text + hidden


def clip(number: Number, text: int) -> int:
    """LLaVA: CLIP, and a projector of two maps."""
    hidden, patch = number("hidden_size"), number("patch_size")
    places = (number("image_size") // patch) ** 2 + 1
    found = 3 * patch * patch * hidden + places * hidden + hidden + 4 * hidden
    found += blocks(hidden, number("intermediate_size"), number("num_hidden_layers"))
    return found + hidden * text + text * text + 2 * text


def merger(hidden: int, out: int, norm: int) -> int:
    """Qwen's projector: four patches become one token."""
    joined = 4 * hidden
    return norm + joined * joined + joined + joined * out + out


def qwen25(number: Number, text: int) -> int:
    """Qwen2.5-VL: a gated MLP, RMS norms."""
    hidden, inner = number("hidden_size"), number("intermediate_size")
    layer = 4 * (hidden * hidden + hidden) + 3 * hidden * inner + 2 * inner + hidden + 2 * hidden
    patch = 3 * number("temporal_patch_size") * number("patch_size") ** 2 * hidden
    return patch + number("depth") * layer + merger(hidden, text, hidden)


def qwen3(number: Number, text: int) -> int:
    """Qwen3-VL: learned places, and a further merger for each layer that feeds the decoder."""
    hidden = number("hidden_size")
    patch = 3 * number("temporal_patch_size") * number("patch_size") ** 2 * hidden + hidden
    found = patch + number("num_position_embeddings") * hidden
    found += blocks(hidden, number("intermediate_size"), number("depth"))
    deep = number("deepstack_visual_indexes") * merger(hidden, text, 8 * hidden)
    return found + merger(hidden, text, 2 * hidden) + deep


def llama4(number: Number, text: int) -> int:
    """Llama 4: LayerNorms around, an adapter of two maps and a projector."""
    hidden, patch = number("hidden_size"), number("patch_size")
    places = (number("image_size") // patch) ** 2 + 1
    found = 3 * patch * patch * hidden + places * hidden + hidden + 4 * hidden
    found += blocks(hidden, number("intermediate_size"), number("num_hidden_layers"))
    middle, out = number("projector_input_dim"), number("projector_output_dim")
    adapter = number("intermediate_size") * middle + middle * out
    return found + adapter + number("vision_output_dim") * text


TOWERS: dict[str, Callable[[Number, int], int]] = {
    "gemma3": siglip,
    "llava": clip,
    "qwen2_5_vl": qwen25,
    "qwen3_vl": qwen3,
    "llama4": llama4,
}


def parameters(kind: str, number: Number, text: int) -> int | None:
    """Parameters of the tower of a model_type; None where its structure is not known."""
    tower = TOWERS.get(kind)
    return tower(number, text) if tower else None


def number_of(value: dict[str, Any], key: str) -> object:
    """A key of a vision_config; of a list its length."""
    found = value.get(key)
    return len(found) if isinstance(found, list) else found
