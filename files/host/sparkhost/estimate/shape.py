"""A model's shape: what of its config.json decides the memory that training it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.launcher.units import Mistake

# Decoders whose layers are attention, two norms and a gated MLP, as terms.activations counts them.
KNOWN = ("llama", "mistral", "qwen2", "qwen3")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
LARGEST = 1 << 20
LETTERS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class Shape(NamedTuple):
    """Sizes of a decoder; those of a model of which only the number of parameters is known are 0."""

    name: str
    parameters: int
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
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether enough is known for what grows with the batch."""
        return self.layers > 0

    @property
    def linear_inputs(self) -> int:
        """Widths of the inputs of a layer's seven linear maps, added up (q, k, v, o, gate, up, down)."""
        return 5 * self.hidden + self.queries + self.intermediate

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA on all seven linear maps of each layer."""
        outputs = 2 * self.hidden + self.queries + 2 * self.keys + 2 * self.intermediate
        return self.layers * rank * (self.linear_inputs + outputs)


def of_count(text: str) -> Shape:
    """A model of which only the number of parameters is known, written `600M`, `1.7B` or `596049920`.

    Raises:
        Mistake: no such number.
    """
    letter = text[-1:].upper()
    digits = text[:-1] if letter in LETTERS else text
    try:
        count = float(digits) * LETTERS.get(letter, 1)
    except ValueError:
        count = 0.0
    if not 1 <= count <= 10**14:
        raise Mistake(f"--parameters: got {text!r}, expected a number such as 600M or 1.7B (M is 10^6, B is 10^9)")
    return Shape(f"{text} parameters", round(count))


def read(path: Path) -> Shape:
    """The shape in a config.json, or in the config.json of a directory.

    Raises:
        Mistake: it cannot be read, or is of a kind that this does not estimate; with the key.
    """
    if path.is_dir():
        path = path / "config.json"
    try:
        with path.open("rb") as stream:
            text = stream.read(LARGEST)
        value = json.loads(text)
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}: give the path of a model's config.json") from error
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{path}: is no JSON: give the path of a model's config.json") from error
    if not isinstance(value, dict):
        raise Mistake(f"{path}: expected a mapping: give the path of a model's config.json")
    return parse(value, str(path))


def parse(value: dict[str, Any], path: str) -> Shape:
    """The shape of a config's values. `path`: as messages name it.

    Raises:
        Mistake: a key is missing or wrong, or the model is of a kind whose terms are not known.
    """
    notes = []
    if isinstance(value.get("text_config"), dict):
        notes.append("text_config only: what images or sound add is not counted")
        value = value["text_config"]
    for key in EXPERTS:
        if value.get(key):
            raise Mistake(
                f"{path}: {key}: got {value[key]!r}: mixtures of experts are not estimated from their configuration; "
                "--parameters COUNT gives what does not depend on the batch, spark-profile measures the rest"
            )
    if value.get("quantization_config"):
        raise Mistake(
            f"{path}: quantization_config: quantised weights are not estimated: measure with spark-profile, "
            "or take it out to see what the model needs in bf16"
        )

    def number(key: str, default: int | None = None) -> int:
        found = value.get(key)
        found = default if found is None else found
        if type(found) is not int or not 0 < found < 10**8:
            raise Mistake(f"{path}: {key}: got {found!r}, expected a whole number above 0")
        return found

    kind = value.get("model_type")
    if kind not in KNOWN:
        notes.append(f"model_type {kind!r} was not measured: counted as a decoder like {', '.join(KNOWN)}")
    hidden, heads = number("hidden_size"), number("num_attention_heads")
    keys_heads, width = number("num_key_value_heads", heads), number("head_dim", max(hidden // heads, 1))
    tied = value.get("tie_word_embeddings")
    if tied is None:
        notes.append("tie_word_embeddings is not set: counted as two matrices")
    shape = Shape(
        name=path,
        parameters=0,
        hidden=hidden,
        intermediate=number("intermediate_size"),
        layers=number("num_hidden_layers"),
        heads=heads,
        queries=heads * width,
        keys=keys_heads * width,
        vocabulary=number("vocab_size"),
        head_norms=kind == "qwen3",
        notes=tuple(notes),
    )
    biases = kind == "qwen2" or bool(value.get("attention_bias"))
    return shape._replace(parameters=count(shape, width, tied is True, biases))


def count(shape: Shape, head: int, tied: bool, biases: bool) -> int:
    """Parameters of a decoder: embeddings, and in each layer four linear maps, a gated MLP of three, and the norms."""
    layer = 2 * shape.hidden * (shape.queries + shape.keys) + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    layer += 2 * head if shape.head_norms else 0
    layer += shape.queries + 2 * shape.keys if biases else 0
    return shape.vocabulary * shape.hidden * (1 if tied else 2) + shape.layers * layer + shape.hidden
