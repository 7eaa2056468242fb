"""JSON of other people's, read so that nothing of it is lost or changed without a word when it is written back.

json.loads takes the last of two equal keys, makes Infinity of 1e400, and ends in a RecursionError where it is nested
deeply; here each of these is a ValueError of one line.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def loads(text: str) -> Any:
    """The value. Raises ValueError: what is wrong, and which key or number it is."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        left = list(found)  # in the order in which they came
        twice = next(name for at, (name, _) in enumerate(pairs) if at == len(left) or left[at] != name)
        raise ValueError(f"the key {twice[:100]!r} is there twice: leave one of them")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
