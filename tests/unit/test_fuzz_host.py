"""A few hundred odd inputs for each parser of the host code; tests/bench/fuzz_host.py runs as many as one likes."""

from __future__ import annotations

import pytest

from tests.bench.fuzz_host import PARSERS, inputs, problem_of


@pytest.mark.parametrize("name", PARSERS)
def test_every_input_is_read_or_refused_in_one_line(name: str) -> None:
    for data in inputs(400, seed=7):
        assert problem_of(PARSERS[name], data) == "", data
