"""Whatever others send, a parser has a value or one line; `python -m tests.bench.fuzz` tries more."""

from __future__ import annotations

import pytest

from tests.fuzzing import PARSERS, fuzz


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_takes_whatever_comes(name: str) -> None:
    few = 40 if name in ("evidence, by every control", "known_hosts") else 250
    assert fuzz(PARSERS[name], few) >= few
