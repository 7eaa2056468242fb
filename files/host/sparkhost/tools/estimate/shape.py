"""A model's shape, counted by the keys of its config.json.

`find` looks for the file, `parse` checks its kind (kinds.py), `count` adds up the parameters. What is not
understood is refused with the reason: a wrong count would say "fits" of what takes the host.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from sparkhost.base.units import Mistake
from sparkhost.tools.estimate import cache, partial, quantised, towers
from sparkhost.tools.estimate.kinds import KINDS, MEASURED, PLAIN, REASONS, RENAMED, TEXT, Kind
from sparkhost.tools.estimate.sizes import Map, Shape

LARGEST = 1 << 20
INDEX = "model.safetensors.index.json"
LARGEST_INDEX = 64 << 20
"""That of a model of 512 experts has some 10 MiB."""
NEAR = 0.005
LETTERS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
GIVE = "give the path of a model's config.json"
OTHERWISE = "measure with spark-profile"


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
    """The shape in a config.json, in that of a directory, or of a model's name in the Hugging Face cache.

    Raises:
        Mistake: it cannot be read, or is of a kind that this does not estimate; with the key.
    """
    path = find(path)
    value = mapping(path, LARGEST)
    shape = parse(value, str(path))
    size = stored(path.with_name(INDEX))
    if size and not value.get("quantization_config"):
        check(shape, path.with_name(INDEX), size)
    return shape._replace(stored=size or shape.stored)


def find(path: Path) -> Path:
    """The config.json that is meant.

    Raises:
        Mistake: a model's name of which the cache has nothing.
    """
    if path.is_dir():
        return path / "config.json"
    if path.exists() or not NAME.fullmatch(str(path)):
        return path
    home = os.environ.get("HF_HOME") or str(Path("~/.cache/huggingface").expanduser())
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub")
    snapshots = cache / f"models--{str(path).replace('/', '--')}" / "snapshots"
    found = [file for file in snapshots.glob("*/config.json") if file.is_file()]
    if not found:
        raise Mistake(
            f"{path}: neither a file nor in the Hugging Face cache {cache}: run 'hf download {path} config.json', "
            "then call this again"
        )
    return max(found, key=lambda file: file.stat().st_mtime)


def mapping(path: Path, largest: int, remedy: str = GIVE) -> dict[str, Any]:
    """A JSON file's mapping.

    Raises:
        Mistake: it cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as stream:
            value = json.loads(stream.read(largest))
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}: {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{path}: is no JSON: {remedy}") from error
    if not isinstance(value, dict):
        raise Mistake(f"{path}: expected a mapping: {remedy}")
    return value


def stored(index: Path) -> int:
    """Bytes of the weights' files by their index; 0 where there is none.

    Raises:
        Mistake: it cannot be read.
    """
    if not index.is_file():
        return 0
    metadata = mapping(index, LARGEST_INDEX, "download it anew").get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(total) if isinstance(total, int | float) and 0 < total < 1 << 50 else 0


def check(shape: Shape, index: Path, total: int) -> None:
    """Hold the count against `total`, what the weights' files have by their index.

    Raises:
        Mistake: they differ by more than 0.5 %.
    """
    if all(abs(shape.parameters * size / total - 1) > NEAR for size in (2, 4)):
        raise Mistake(
            f"{index}: total_size: got {total}, which is not 2 or 4 bytes for each of the {shape.parameters} "
            f"parameters that config.json makes: its structure is not understood: {OTHERWISE}"
        )


class Keys:
    """A mapping's keys as whole numbers above 0, with a kind's defaults."""

    def __init__(self, value: dict[str, Any], path: str) -> None:
        self.value = value
        self.path = path

    def __call__(self, key: str, default: int | None = None) -> int:
        found = self.value.get(key)
        found = default if found is None else found
        if type(found) is not int or not 0 < found < 10**8:
            raise Mistake(f"{self.path}: {key}: got {found!r}, expected a whole number above 0")
        return found


def parse(value: dict[str, Any], path: str) -> Shape:
    """The shape of a config's values. `path`: as messages name it.

    Raises:
        Mistake: a key is missing or wrong, or the model is of a kind whose terms are not known.
    """
    outer = str(value.get("model_type"))
    text, notes = value, []
    if isinstance(value.get("text_config"), dict):
        text = {"tie_word_embeddings": value.get("tie_word_embeddings"), **value["text_config"]}
        text.setdefault("model_type", TEXT.get(outer, outer))
    name = str(text.get("model_type"))
    for one in (outer, name):
        if one in REASONS:
            return counted(value, path, one)
    kind = KINDS.get(name)
    if kind is None or (name == "falcon" and text.get("new_decoder_architecture")):
        raise Mistake(f"{path}: model_type: got {name!r}: its structure is not known here: {OTHERWISE}")
    text = {RENAMED.get(name, {}).get(key, key): found for key, found in text.items() if found is not None}
    for key, default in kind.defaults.items():
        text.setdefault(key, default)
    shape = count(kind, text, Keys(text, path))
    tower = value.get("vision_config")
    if isinstance(tower, dict):
        sizes = {key: towers.number_of(tower, key) for key in tower}
        more = towers.parameters(outer, Keys(sizes, f"{path}: vision_config"), shape.hidden)
        if more is None:
            raise Mistake(f"{path}: vision_config: of model_type {outer!r} it is not known here: {OTHERWISE}")
        shape = shape._replace(parameters=shape.parameters + more)
        notes.append("the vision tower's weights are counted, not what images keep: measure with them")
    if name not in MEASURED:
        notes.append(f"model_type {name!r}: counted by its own keys, but no run of it was measured")
    base = quantised.base_of(value.get("quantization_config"), notes)
    windowed, window = cache.windows(name, text, shape.layers)
    return shape._replace(
        name=path,
        kind=name,
        base=base,
        plain=name in PLAIN,
        windowed=windowed,
        window=window,
        stored=quantised.stored(shape, value.get("quantization_config")),
        notes=tuple(notes),
    )


def counted(value: dict[str, Any], path: str, kind: str) -> Shape:
    """A model of which nothing but the parameters is known.

    Raises:
        Mistake: nor are they.
    """
    number = partial.parameters(kind, Keys(value, path), value) if "text_config" not in value else None
    if number is None:
        raise Mistake(f"{path}: model_type: got {kind!r}: {REASONS[kind]}: {OTHERWISE}")
    stored = None if value.get("quantization_config") else 2 * number
    return Shape(path, number, kind, stored=stored, reason=REASONS[kind])


def attention_of(kind: Kind, text: dict[str, Any], number: Keys) -> tuple[tuple[Map, ...], int, int, int]:
    """A layer's maps, the widths of queries and keys, and that of one head."""
    hidden, heads = number("hidden_size"), number("num_attention_heads")
    if kind.latent:
        nope, rope, values = (number(key) for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        inner, width = number("kv_lora_rank"), heads * (nope + rope)
        low = number("q_lora_rank", hidden)
        first: tuple[Map, ...] = ((hidden, low), (low, width)) if "q_lora_rank" in text else ((hidden, width),)
        rest = ((hidden, inner + rope), (inner, heads * (nope + values)), (heads * values, hidden))
        return (*first, *rest), width, width, nope + rope
    head = number("head_dim", max(hidden // heads, 1))
    queries = heads * head
    keys = head if text.get("multi_query") else number("num_key_value_heads", heads) * head
    if "qkv" in kind.fused:
        return ((hidden, queries + 2 * keys), (queries, hidden)), queries, keys, head
    return ((hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)), queries, keys, head


def mlp_of(kind: Kind, hidden: int, width: int) -> tuple[Map, ...]:
    if not kind.gated:
        return ((hidden, width), (width, hidden))
    if "gate_up" in kind.fused:
        return ((hidden, 2 * width), (width, hidden))
    return ((hidden, width), (hidden, width), (width, hidden))


def volume(maps: tuple[Map, ...]) -> int:
    return sum(inner * outer for inner, outer in maps)


def mixture(kind: Kind, text: dict[str, Any], number: Keys, layers: int) -> tuple[int, int]:
    """Parameters of the experts and routers of all layers, and the layers that have a plain MLP instead."""
    hidden = number("hidden_size")
    experts = next((number(key) for key in EXPERTS if text.get(key)), 0)
    if not experts:
        raise Mistake(f"{number.path}: {EXPERTS[0]}: is missing, and so is {' or '.join(EXPERTS[1:])}")
    width = number("moe_intermediate_size", text.get("intermediate_size"))
    shared = text.get("n_shared_experts") or ("intermediate_size_mlp" in text) * 1
    step = text.get("interleave_moe_layer_step") or text.get("decoder_sparse_step") or 1
    only = text.get("mlp_only_layers") or ()
    first = text.get("first_k_dense_replace") or 0
    counts = [type(item) is int and 0 <= item <= layers for item in (shared, step, first)]
    if not all(counts) or not isinstance(only, list | tuple):
        raise Mistake(
            f"{number.path}: n_shared_experts, decoder_sparse_step, first_k_dense_replace, mlp_only_layers: got "
            f"{[shared, step, first, only]!r}, expected three whole numbers and a list of them"
        )
    sparse = sum(1 for at in range(first, layers) if (at + 1) % step == 0 and at not in only)
    one = (experts + shared) * volume(mlp_of(kind, hidden, width)) + hidden * experts
    return sparse * one, layers - sparse


def count(kind: Kind, text: dict[str, Any], number: Keys) -> Shape:
    """The shape: embeddings, in each layer maps, biases and norms, and a last norm."""
    hidden, layers, vocabulary = (number(key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    if layers > 10**4:
        raise Mistake(f"{number.path}: num_hidden_layers: got {layers}, expected 10000 at most")
    attention, queries, keys, head = attention_of(kind, text, number)
    width = number("intermediate_size", None if kind.gated else 4 * hidden)
    mlp = mlp_of(kind, hidden, number("intermediate_size_mlp", width))
    experts, dense = (0, layers) if kind.dense else mixture(kind, text, number, layers)
    linear = layers * volume(attention) + dense * volume(mlp) + experts
    norm = hidden * (2 if kind.centred else 1)
    layer = kind.norms * norm + (2 * head if kind.head_norms else 0)
    biases = kind.biases + (" qkv" if text.get("attention_bias") else "")
    layer += queries + 2 * keys if "qkv" in biases else 0
    layer += hidden if "o" in biases.split() else 0
    layer += width + hidden if "mlp" in biases else 0
    tied = text.get("tie_word_embeddings") is True
    found = linear + layers * layer + norm + vocabulary * hidden * (1 if tied else 2)
    found += number("n_positions") * hidden if "n_positions" in kind.defaults else 0
    return Shape(
        name="",
        parameters=found,
        hidden=hidden,
        intermediate=width,
        layers=layers,
        heads=number("num_attention_heads"),
        queries=queries,
        keys=keys,
        vocabulary=vocabulary,
        head_norms=kind.head_norms,
        attention=attention,
        mlp=mlp if kind.dense else (),
        linear=linear,
        experts=experts,
        latent=number("kv_lora_rank") + number("qk_rope_head_dim") if kind.latent else 0,
        longest=number("max_position_embeddings") if text.get("max_position_embeddings") else 0,
        softcap=bool(text.get("final_logit_softcapping")),
    )
