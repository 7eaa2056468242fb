"""For all unit tests: whatever walks over its steps in this process changes nothing by that (ADR 18)."""

from collections.abc import Iterator

import pytest

from tests.unit import walks

walks.watch()


@pytest.fixture(autouse=True)
def a_walk_changes_nothing() -> Iterator[None]:
    walks.noted.clear()
    yield
    assert not walks.noted, "a walk over steps must only look"
