"""A model's sizes that decide the memory of training it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Map = tuple[int, int]
"""A linear map: widths of its input and of its output."""
Base = Literal["bf16", "nf4", "int8"]
Targets = Literal["all", "attention"]


class Shape(NamedTuple):
    """Sizes of a decoder; those of a model of which only the number of parameters is known are 0."""

    name: str
    parameters: int
    """All that are resident: every expert's, and a vision tower's."""
    kind: str = ""
    hidden: int = 0
    intermediate: int = 0
    layers: int = 0
    heads: int = 0
    queries: int = 0
    """Width of all query heads together."""
    keys: int = 0
    """Width of all key heads together; that of the values is the same."""
    vocabulary: int = 0
    head_norms: bool = False
    """Whether queries and keys are normalised by head (Qwen3)."""
    attention: tuple[Map, ...] = ()
    """Linear maps of a layer's attention."""
    mlp: tuple[Map, ...] = ()
    """Those of its MLP; of a mixture's none, since peft's adapters do not go onto experts by default."""
    linear: int = 0
    """Parameters of all linear maps in the layers, experts included: what bitsandbytes quantises."""
    experts: int = 0
    """Of these, what belongs to a mixture's experts and their routers."""
    latent: int = 0
    """What a token leaves in a layer's cache with latent attention, elements; else 0: a key and a value."""
    windowed: int = 0
    """Layers that see only the last `window` tokens."""
    window: int = 0
    stored: int | None = None
    """Bytes of the weights as the file has them; None where its format is not known."""
    longest: int = 0
    """Tokens of a sequence that the model was made for; 0 where the file does not say."""
    softcap: bool = False
    """Whether the logits go through a tanh, which keeps one more copy of them (Gemma 2)."""
    plain: bool = True
    """Whether what its layers keep without checkpointing is known (terms.activations)."""
    base: Base = "bf16"
    """What its file says that weights are loaded in."""
    notes: tuple[str, ...] = ()
    reason: str = ""
    """Why nothing is known but the parameters, of a model that has a configuration."""

    @property
    def whole(self) -> bool:
        """Whether enough is known for what grows with the batch."""
        return self.layers > 0

    @property
    def linear_inputs(self) -> int:
        """Widths of the inputs of a layer's linear maps, added up."""
        return sum(inner for inner, _ in (*self.attention, *self.mlp))

    def adapters(self, rank: int, targets: Targets = "all") -> int:
        """Parameters of LoRA on the linear maps of each layer, or on those of the attention alone."""
        maps = self.attention if targets == "attention" else (*self.attention, *self.mlp)
        return self.layers * rank * sum(inner + outer for inner, outer in maps)
