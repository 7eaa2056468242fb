"""Sizes and durations: what is read, what is refused, and that what is shown can be read again."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from sparkfleet.settings.units import DURATION_UNITS, LARGEST_SIZE, LONGEST_DURATION, SIZE_UNITS, Seconds, Size

UNTIMED = hypothesis.settings(deadline=None)  # the machine may be busy


@UNTIMED
@hypothesis.given(st.integers(0, LARGEST_SIZE))
def test_a_size_is_read_back_as_it_was(count: int) -> None:
    assert int(Size.parse(str(Size(count)))) == count


@UNTIMED
@hypothesis.given(st.integers(0, 8191), st.sampled_from(sorted(SIZE_UNITS)))
def test_a_written_size_counts_its_unit(number: int, unit: str) -> None:
    assert Size.parse(f"{number}{unit}") == number * SIZE_UNITS[unit]


@UNTIMED
@hypothesis.given(st.integers(0, LONGEST_DURATION))
def test_a_duration_is_read_back_as_it_was(milliseconds: int) -> None:
    assert Seconds.parse(str(Seconds(milliseconds / 1000))).milliseconds == milliseconds


@UNTIMED
@hypothesis.given(st.integers(0, 10_000), st.sampled_from(sorted(DURATION_UNITS)))
def test_a_written_duration_counts_its_unit(number: int, unit: str) -> None:
    assert Seconds.parse(f"{number}{unit}").milliseconds == number * DURATION_UNITS[unit]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (1024, "1KiB"),
        (1025, "1025B"),
        (2**30, "1GiB"),
        (3 * 2**29, "1536MiB"),
        (2**50, "1024TiB"),
    ],
)
def test_a_size_is_shown_in_its_largest_whole_unit(size: int, text: str) -> None:
    assert str(Size(size)) == f"{Size(size)}" == text


@pytest.mark.parametrize(
    "value",
    [
        *(16, 1.5, True, None, [], {}, float("nan")),
        *("16", "16G", "16GB", "16 GiB", "16gib", "-1GiB", "+1GiB", "1.5GiB", "1e3MiB", "NaN", "GiB", "", "16GiB\n"),
        *("٣GiB", "1_000MiB", "9" * 20 + "B", "8388608TiB", "0x10MiB"),
    ],
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="expected a size"):
        TypeAdapter(Size).validate_python(value)


@pytest.mark.parametrize(
    "value", [5, 0.5, None, "5", "5 s", "-5s", "5sec", "1.5h", "inf", "nan", "", "5m", "10001d", "5s\n"]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="expected a duration"):
        TypeAdapter(Seconds).validate_python(value)


@pytest.mark.parametrize("count", [-1, LARGEST_SIZE + 1])
def test_code_cannot_make_an_impossible_size(count: int) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        Size(count)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_code_cannot_make_an_impossible_duration(seconds: float) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        Seconds(seconds)


def test_json_holds_what_a_fleet_file_would() -> None:
    cases: list[tuple[TypeAdapter[Any], Any, str]] = [
        (TypeAdapter(Size), Size(2**20), "1MiB"),
        (TypeAdapter(Seconds), Seconds(0.25), "250ms"),
    ]
    for adapter, value, text in cases:
        assert adapter.dump_python(value, mode="json") == text
        assert adapter.validate_python(text) == value
        assert adapter.validate_python(value) is value
        assert text in repr(value)


def test_zero_has_a_unit() -> None:
    assert str(Seconds(0)) == "0s"
    with pytest.raises(PydanticCustomError):
        Size.parse("0")
