"""Bytes of a model's weights as its file holds them, which is what an engine serves.

Formats are told from `quantization_config`. Linear maps of the layers are quantised, and neither embeddings nor the
output; held against public start-up logs of vLLM (tests/bench/serve_rows.json).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparkhost.tools.estimate.sizes import Base, Shape

FP8, NVFP4, MXFP4 = 1.0, 0.5 + 1 / 16, 0.5 + 1 / 32
"""Bytes of a parameter: NVFP4 has a scale of one byte for 16 values, MXFP4 for 32."""
PADDED = 256
"""vLLM rounds the width of MXFP4 experts up to a multiple of it."""


def each(found: Mapping[str, Any]) -> float | None:
    """Bytes of a quantised parameter, scales included; None where the format is not known."""
    how = found.get("quant_method")
    if how in ("fp8", "fbgemm_fp8"):
        return FP8
    if how == "mxfp4":
        return MXFP4
    if how == "bitsandbytes":
        return 0.5 + 4 / 64 if found.get("load_in_4bit") else 1.0
    if how == "modelopt" or str(found.get("quant_algo", "")):
        return {"NVFP4": NVFP4, "FP8": FP8}.get(str(found.get("quant_algo")))
    if how in ("awq", "gptq", "auto-round", "autoround"):
        return grouped(found.get("bits", found.get("w_bit")), found.get("group_size", found.get("q_group_size")))
    if how == "compressed-tensors":
        groups = found.get("config_groups")
        for group in groups.values() if isinstance(groups, Mapping) else ():
            weights = group.get("weights") if isinstance(group, Mapping) else None
            if isinstance(weights, Mapping):
                bits, size = weights.get("num_bits"), weights.get("group_size")
                return NVFP4 if (bits, weights.get("type")) == (4, "float") else grouped(bits, size)
    return None


def grouped(bits: object, group: object) -> float | None:
    """So many bits, with a scale of two bytes and a zero for each group; no group: one scale for a whole row."""
    if type(bits) is not int or not 1 < bits <= 16:
        return None
    if type(group) is not int or group <= 0:
        return bits / 8
    return bits / 8 + (2 + bits / 8) / group


def stored(shape: Shape, found: object) -> int | None:
    """Bytes of the weights in the file's format; None where it is not known. `found`: its quantization_config."""
    if not isinstance(found, Mapping):
        return shape.parameters * 2
    size = each(found)
    if size is None:
        return None
    quantised = shape.linear
    if found.get("quant_method") == "mxfp4":
        wide = -(-shape.hidden // PADDED) * PADDED
        return int(shape.experts * wide / shape.hidden * size) + (shape.parameters - shape.experts) * 2
    skipped = found.get("ignore") or found.get("modules_to_not_convert") or found.get("exclude_modules") or ()
    if isinstance(skipped, list | tuple) and any("self_attn" in str(name) for name in skipped):
        quantised -= shape.layers * sum(inner * outer for inner, outer in shape.attention)
    return int(quantised * size) + (shape.parameters - quantised) * 2


def base_of(found: object, notes: list[str]) -> Base:
    """What a file's weights are loaded in. Only bitsandbytes trains on quantised ones."""
    if not isinstance(found, dict):
        return "bf16"
    how = found.get("quant_method")
    if how == "bitsandbytes":
        return "nf4" if found.get("load_in_4bit") else "int8"
    notes.append(f"quantization_config: {how!r} is counted in bf16, into which it is taken apart for training")
    return "bf16"
