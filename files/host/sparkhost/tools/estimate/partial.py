"""Parameters of models of which nothing else is estimated: hybrids, encoders and encoder-decoders.

What such a run holds whatever its batch (weights, gradients, moments) follows from them, so that one that does not fit
is found; whether one fits is never said. Counted by the configurations' keys and the classes of transformers 5.17, and
held against models that it built on the meta device (tests/bench/estimate_shapes.json).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol


class Number(Protocol):
    """A key as a whole number above 0, with a default where the file may leave it out."""

    def __call__(self, key: str, default: int | None = None) -> int: ...


Text = Mapping[str, Any]


def embeddings(number: Number, text: Text, tied: str = "tie_word_embeddings") -> int:
    """Of input and output, and the last norm."""
    hidden = number("hidden_size")
    return number("vocab_size") * hidden * (1 if text.get(tied) is True else 2) + hidden


def attention(number: Number, more: int = 0) -> int:
    """Queries, keys, values, output; `more`: further widths of the queries."""
    hidden, heads = number("hidden_size"), number("num_attention_heads")
    head = number("head_dim", max(hidden // heads, 1))
    queries, keys = heads * head, number("num_key_value_heads", heads) * head
    return hidden * (queries * (1 + more) + 2 * keys) + queries * hidden


def gated(hidden: int, width: int) -> int:
    return 3 * hidden * width


def mamba1(hidden: int, inner: int, state: int, rank: int, kernel: int) -> int:
    """A mixer of Mamba: both projections, convolution, selection, A, D."""
    selection = inner * (rank + 2 * state) + rank * inner + inner
    return 3 * hidden * inner + inner * (kernel + 1) + selection + inner * (state + 1)


def mamba2(hidden: int, heads: int, head: int, wide: int, kernel: int) -> int:
    """A mixer of Mamba 2 without its norm; `wide`: groups x state."""
    inner = heads * head
    mixed = inner + 2 * wide
    return hidden * (inner + mixed + heads) + mixed * (kernel + 1) + 3 * heads + inner * hidden


def falcon_mamba(number: Number, text: Text) -> int:
    hidden, inner = number("hidden_size"), number("intermediate_size")
    layer = mamba1(hidden, inner, number("state_size"), number("time_step_rank"), number("conv_kernel"))
    return number("num_hidden_layers") * (layer + hidden) + embeddings(number, text)


def falcon_h1(number: Number, text: Text) -> int:
    """In each layer both of them, side by side."""
    hidden, inner = number("hidden_size"), number("mamba_d_ssm")
    wide = number("mamba_n_groups") * number("mamba_d_state")
    layer = mamba2(hidden, number("mamba_n_heads"), number("mamba_d_head"), wide, number("mamba_d_conv"))
    layer += inner if text.get("mamba_rms_norm") else 0
    layer += attention(number) + gated(hidden, number("intermediate_size")) + 2 * hidden
    return number("num_hidden_layers") * layer + embeddings(number, text)


def granite(number: Number, text: Text) -> int | None:
    """By `layer_types`, without which it is not known; nor with experts."""
    types = text.get("layer_types")
    if not isinstance(types, list) or text.get("num_local_experts"):
        return None
    hidden, heads, head = number("hidden_size"), number("mamba_n_heads"), number("mamba_d_head")
    wide = number("mamba_n_groups") * number("mamba_d_state")
    mixer = mamba2(hidden, heads, head, wide, number("mamba_d_conv")) + heads * head
    both = gated(hidden, number("shared_intermediate_size")) + 2 * hidden
    mixers = sum(attention(number) if one == "attention" else mixer for one in types)
    return mixers + len(types) * both + embeddings(number, text)


def nemotron_h(number: Number, text: Text) -> int | None:
    """By `hybrid_override_pattern`: M is Mamba 2, E experts, - a plain MLP, * attention."""
    pattern = text.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or set(pattern) - set("ME-*"):
        return None
    hidden, heads, head = number("hidden_size"), number("mamba_num_heads"), number("mamba_head_dim")
    wide = number("n_groups") * number("ssm_state_size")
    total = pattern.count("M") * (mamba2(hidden, heads, head, wide, number("conv_kernel")) + heads * head)
    total += pattern.count("*") * attention(number) + pattern.count("-") * 2 * hidden * number("intermediate_size")
    if "E" in pattern:
        experts = number("n_routed_experts")
        one = experts * (2 * hidden * number("moe_intermediate_size") + hidden)
        shared = number("n_shared_experts") * 2 * hidden * number("moe_shared_expert_intermediate_size")
        total += pattern.count("E") * (one + shared)
    return total + len(pattern) * hidden + embeddings(number, text)


def jamba(number: Number, text: Text) -> int:
    hidden, layers = number("hidden_size"), number("num_hidden_layers")
    state, rank = number("mamba_d_state", 16), number("mamba_dt_rank", -(-hidden // 16))
    mixer = mamba1(hidden, number("mamba_expand", 2) * hidden, state, rank, number("mamba_d_conv", 4))
    mixer += rank + 2 * state
    plain = gated(hidden, number("intermediate_size"))
    experts = number("num_experts") * (plain + hidden)
    period, offset = number("attn_layer_period", 8), text.get("attn_layer_offset", 4)
    sparse, begins = number("expert_layer_period", 2), text.get("expert_layer_offset", 1)
    total = sum(attention(number) if at % period == offset else mixer for at in range(min(layers, 10**4)))
    total += sum(experts if at % sparse == begins else plain for at in range(min(layers, 10**4)))
    return total + layers * 2 * hidden + embeddings(number, text)


def lfm2(number: Number, text: Text) -> int | None:
    hidden, layers = number("hidden_size"), number("num_hidden_layers")
    types, places = text.get("layer_types"), text.get("full_attn_idxs")
    if isinstance(types, list):
        full = sum(1 for one in types if one == "full_attention")
    elif isinstance(places, list):
        full = len(places)
    else:
        return None
    width = number("block_ff_dim", number("intermediate_size"))
    if text.get("block_auto_adjust_ff_dim", True) is True:
        multiple, factor = number("block_multiple_of", 256), text.get("block_ffn_dim_multiplier", 1.0)
        width = int(2 * width / 3 * (factor if isinstance(factor, int | float) else 1.0))
        width = -(-width // multiple) * multiple
    head = number("head_dim", max(hidden // number("num_attention_heads"), 1))
    convolution = 4 * hidden * hidden + hidden * number("conv_L_cache")
    total = full * (attention(number) + 2 * head) + (layers - full) * convolution
    tied = "tie_embedding" if "tie_embedding" in text else "tie_word_embeddings"
    return total + layers * (gated(hidden, width) + 2 * hidden) + embeddings(number, {tied: True, **text}, tied)


def qwen3_next(number: Number, text: Text) -> int:
    hidden, layers, head = number("hidden_size"), number("num_hidden_layers"), number("head_dim")
    values = number("linear_num_value_heads") * number("linear_value_head_dim")
    keys = number("linear_num_key_heads") * number("linear_key_head_dim")
    mixed = (2 * keys + values) * number("linear_conv_kernel_dim")
    linear = hidden * (2 * keys + 2 * values + 2 * number("linear_num_value_heads")) + mixed + values * hidden
    linear += 2 * number("linear_num_value_heads") + number("linear_value_head_dim")
    full = layers // number("full_attention_interval", 4)
    width, shared = number("moe_intermediate_size"), number("shared_expert_intermediate_size")
    experts = number("num_experts") * (gated(hidden, width) + hidden) + gated(hidden, shared) + hidden
    total = full * (attention(number, more=1) + 2 * head) + (layers - full) * linear
    return total + layers * (experts + 2 * hidden) + embeddings(number, text)


def t5(number: Number, text: Text) -> int:
    hidden, heads = number("d_model"), number("num_heads")
    attended = 4 * hidden * heads * number("d_kv")
    gates = 3 if str(text.get("feed_forward_proj", "relu")).startswith("gated") else 2
    plain = gates * hidden * number("d_ff")
    encoder = number("num_layers") * (attended + plain + 2 * hidden)
    decoder = number("num_decoder_layers", number("num_layers")) * (2 * attended + plain + 3 * hidden)
    tables = number("vocab_size") * hidden * (2 if text.get("tie_word_embeddings") is False else 1)
    return encoder + decoder + tables + 2 * number("relative_attention_num_buckets", 32) * heads + 2 * hidden


def whisper(number: Number, text: Text) -> int:
    hidden = number("d_model")
    attended = 4 * hidden * hidden + 3 * hidden

    def stack(side: str, attentions: int) -> int:
        width = number(f"{side}_ffn_dim")
        plain = 2 * hidden * width + width + hidden
        layer = attentions * attended + plain + (attentions + 1) * 2 * hidden
        return number(f"{side}_layers") * layer + 2 * hidden

    heard = 3 * hidden * (number("num_mel_bins") + hidden) + 2 * hidden
    places = number("max_source_positions", 1500) + number("max_target_positions", 448) + number("vocab_size")
    return stack("encoder", 1) + stack("decoder", 2) + heard + places * hidden


def modernbert(number: Number, text: Text) -> int:
    """With its head for masked words."""
    hidden, layers, words = number("hidden_size"), number("num_hidden_layers"), number("vocab_size")
    layer = 4 * hidden * hidden + gated(hidden, number("intermediate_size"))
    return layers * (layer + 2 * hidden) + (words + 2) * hidden + hidden * hidden + words


COUNTS: dict[str, Callable[[Number, Text], int | None]] = {
    "falcon_h1": falcon_h1,
    "falcon_mamba": falcon_mamba,
    "granitemoehybrid": granite,
    "jamba": jamba,
    "lfm2": lfm2,
    "modernbert": modernbert,
    "nemotron_h": nemotron_h,
    "qwen3_next": qwen3_next,
    "t5": t5,
    "whisper": whisper,
}


def parameters(kind: str, number: Number, text: Text) -> int | None:
    """Parameters of a model_type; None where they are not known either."""
    count = COUNTS.get(kind)
    return count(number, text) if count else None
