"""What a model_type implies: traits of its classes, and defaults that published files leave out.

Source of every entry: the configuration and model classes of transformers 5.17. The counts are held
against models that transformers built on the meta device (tests/bench/estimate_shapes.json).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A decoder's structure, as far as its configuration does not say it."""

    norms: int = 2
    """Norms of the hidden size in a layer."""
    centred: bool = False
    """Whether a norm has a bias as well (LayerNorm)."""
    gated: bool = True
    """Whether the MLP has three linear maps; else two."""
    fused: tuple[str, ...] = ()
    """Maps that are one: `qkv`, `gate_up`."""
    head_norms: bool = False
    """Whether queries and keys are normalised by head."""
    biases: str = ""
    """What has a bias in any case: `qkv`, `o`, `mlp`."""
    dense: bool = True
    """Whether all parameters work on each token; false for mixtures of experts."""
    latent: bool = False
    """Multi-head latent attention (DeepSeek)."""
    defaults: Mapping[str, Any] = MappingProxyType({})


GEMMA = {"tie_word_embeddings": True, "head_dim": 256, "vocab_size": 262208}
GEMMA2 = {"vocab_size": 256000, "final_logit_softcapping": 30.0}
GEMMA3 = {"num_attention_heads": 8, "num_key_value_heads": 4}
ALL = "qkv o mlp"

KINDS: dict[str, Kind] = {
    "llama": Kind(
        defaults={
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "vocab_size": 32000,
        }
    ),
    "mistral": Kind(),
    "ministral": Kind(),
    "seed_oss": Kind(biases="qkv"),
    "smollm3": Kind(defaults={"tie_word_embeddings": True}),
    "qwen2": Kind(biases="qkv"),
    "qwen2_5_vl": Kind(biases="qkv"),
    "qwen2_5_vl_text": Kind(biases="qkv"),
    "qwen3": Kind(head_norms=True),
    "qwen3_vl_text": Kind(head_norms=True),
    "olmo2": Kind(),
    "olmo3": Kind(),
    "phi3": Kind(fused=("qkv", "gate_up")),
    "glm4": Kind(norms=4, fused=("gate_up",)),
    "gemma": Kind(defaults={**GEMMA, "vocab_size": 256000}),
    "gemma2": Kind(norms=4, defaults={**GEMMA, **GEMMA2}),
    "gemma3_text": Kind(norms=4, head_norms=True, defaults={**GEMMA, **GEMMA3}),
    "cohere2": Kind(norms=1, defaults={"tie_word_embeddings": True}),
    "starcoder2": Kind(centred=True, gated=False, biases=ALL, defaults={"tie_word_embeddings": True}),
    "phi": Kind(norms=1, centred=True, gated=False, biases=ALL),
    "gpt_neox": Kind(centred=True, gated=False, fused=("qkv",), biases=ALL),
    "gpt2": Kind(
        centred=True,
        gated=False,
        fused=("qkv",),
        biases=ALL,
        defaults={"tie_word_embeddings": True, "vocab_size": 50257, "n_positions": 1024},
    ),
    "falcon": Kind(
        norms=1,
        centred=True,
        gated=False,
        fused=("qkv",),
        defaults={"tie_word_embeddings": True},
    ),
    "mixtral": Kind(dense=False),
    "qwen3_moe": Kind(dense=False, head_norms=True),
    "glm4_moe": Kind(dense=False),
    "gpt_oss": Kind(dense=False),
    "deepseek_v2": Kind(dense=False, latent=True),
    "deepseek_v3": Kind(dense=False, latent=True),
    "llama4_text": Kind(dense=False),
    "minicpm3": Kind(latent=True),
}

MEASURED = (
    "cohere2",
    "deepseek_v2",
    "gemma2",
    "gemma3_text",
    "glm4",
    "gpt_oss",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "seed_oss",
)
"""Kinds of which a GPU run was held against the terms, with checkpointing (docs/estimate.md)."""
PLAIN = ("llama", "mistral", "qwen2", "qwen3")
"""Those whose layers keep what terms.activations counts without checkpointing."""

RENAMED = {
    "gpt2": {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
    },
}

TEXT = {"gemma3": "gemma3_text", "llava": "llama", "llama4": "llama4_text"}
"""The kind of a text_config that does not say its own."""

HYBRID = (
    "layers of Mamba, linear attention or convolutions: what they keep depends on the kernels that are "
    "installed (measured with torch's own: 35 to 60 GiB for 1.5 billion parameters)"
)
OTHERS = "is no decoder that predicts the next token, or an encoder beside one: its terms are not known here"
REASONS: dict[str, str] = {
    **dict.fromkeys(
        (
            "falcon_h1",
            "falcon_mamba",
            "granitemoehybrid",
            "jamba",
            "lfm2",
            "mamba",
            "mamba2",
            "nemotron_h",
            "qwen3_5",
            "qwen3_5_text",
            "qwen3_next",
            "zamba2",
        ),
        HYBRID,
    ),
    **dict.fromkeys(("bert", "modernbert", "t5", "vit", "whisper", "bart", "roberta"), OTHERS),
    "gemma3n": "embeddings by layer, shared keys and AltUp: its terms are not known here",
    "gemma3n_text": "embeddings by layer, shared keys and AltUp: its terms are not known here",
    "nemotron-nas": "each layer has a shape of its own, in block_configs: not known here",
}
