"""Feeds every parser of foreign data many inputs, and says how many: `python -m tests.bench.fuzz [COUNT] [NAME …]`.

Mutations of real answers, other JSON of their shape, and noise; from seeds, so that a second run has the same. Ends
with the first input that a parser does not take. hypothesis, which tests/unit/test_fuzzing.py uses, finds small
examples, and takes ten times as long.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.fuzzing import PARSERS, TOKENS, Parser, feed, packed

SCALARS: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e308,
    10**30,
    "",
    "\x1b[2J",
    "\ud800",
    "\u202e",
    "\0",
    [],
    {},
    [[]],
    {"": 0},
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Some places cut, doubled, overwritten, or with something put in."""
    for _ in range(chance.randint(1, 6)):
        at, length = chance.randint(0, len(data)), chance.choice((0, 1, 2, 8, 64))
        new = chance.choice((chance.choice(TOKENS), chance.randbytes(chance.randint(0, 4)), data[at : at + length] * 2))
        data = data[:at] + new + data[at + length :]
    return data


def rewritten(value: Any, chance: random.Random) -> Any:
    """A JSON value in which here and there a part is another value, or missing."""
    if chance.random() < 0.07:
        return chance.choice((*SCALARS, [value], {"x": value}))
    if isinstance(value, dict):
        return {key: rewritten(each, chance) for key, each in value.items() if chance.random() > 0.03}
    return [rewritten(each, chance) for each in value] if isinstance(value, list) else value


def made(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One input."""
    seed, how = chance.choice(seeds), chance.random()
    if how < 0.05:
        return chance.randbytes(chance.randint(0, 200))
    if how < 0.4 and seed.startswith(b"{") and seed.endswith(b"}"):
        return packed(rewritten(json.loads(seed), chance))
    return mutated(seed, chance)


def fuzz(parser: Parser, count: int) -> int:
    """How many inputs a parser refused, of so many."""
    refused = 0
    for number in range(count):
        data = made(parser.seeds, random.Random(number))
        try:
            refused += not feed(parser, data)
        except BaseException:
            print(f"{number}: {data[:2000]!r}", flush=True)
            raise
    return refused


def main() -> int:
    """Runs them all, or those whose names hold one of the given words."""
    words = sys.argv[1:]
    count = int(words.pop(0)) if words and words[0].isdecimal() else 10_000
    for name, parser in PARSERS.items():
        if words and not any(word in name for word in words):
            continue
        began = time.monotonic()
        refused = fuzz(parser, count)
        print(f"{name}: {count} inputs, {refused} refused, {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
