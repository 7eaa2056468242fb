"""Feeds every parser of foreign data many inputs, and says how many: `python -m tests.bench.fuzz [COUNT] [NAME …]`.

Mutations of real answers, other JSON of their shape, and noise; ends with 1 at the first that a parser does not take.
"""

from __future__ import annotations

import sys
import time

from tests.fuzzing import PARSERS, fuzz


def main() -> int:
    """Runs them all, or those whose names hold one of the given words."""
    words = sys.argv[1:]
    count = int(words.pop(0)) if words and words[0].isdecimal() else 10_000
    for name, parser in PARSERS.items():
        if words and not any(word in name for word in words):
            continue
        began = time.monotonic()
        print(f"{name}: ", end="", flush=True)
        inputs = fuzz(parser, count)
        print(f"{inputs} inputs, {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
