"""A block at the end of somebody else's file: put in, found, taken out without a trace."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparkhost.base.block import Block, put_in, take_out

BLOCK = Block("cuda_env", ("OURS",))
# What people write, and the odd: no newline at the end, blank lines, carriage returns, a marker of another measure.
LINES = st.sampled_from(
    ["A=1\n", "\n", "# comment\n", "PATH=/bin\r\n", f"{Block('other').begin}\n", "\t\n", "ü=\udcff\n"]
)
TEXTS = st.builds(lambda lines, last: "".join(lines) + last, st.lists(LINES), st.sampled_from(["", "LAST=2", " "]))


@given(TEXTS, st.lists(st.sampled_from(["OURS=1", "OURS=2"])))
@example("", [])
@example("no newline", ["OURS=1"])
def test_taking_a_block_out_gives_the_file_back_byte_for_byte(text: str, lines: list[str]) -> None:
    with_block = put_in(text, lines, BLOCK)
    assert take_out(with_block, BLOCK).text == text
    assert put_in(with_block, lines, BLOCK) == with_block
    assert with_block.endswith("".join(f"{line}\n" for line in (*lines, BLOCK.end)))


def test_a_file_that_we_made_is_known_as_such() -> None:
    text = put_in(None, ["OURS=1"], BLOCK)
    assert take_out(text, BLOCK).new_file
    assert take_out(put_in(text, ["OURS=2"], BLOCK), BLOCK).new_file
    assert not take_out(put_in("", ["OURS=1"], BLOCK), BLOCK).new_file
    # What somebody adds to a file that we made is not ours to delete.
    assert take_out(f"{text}THEIRS=1\n", BLOCK).text == "THEIRS=1\n"


@pytest.mark.parametrize(
    ("edited", "left"),
    [
        ("A=1\n{begin}\nOURS=1\n{end}\nB=2\n", "A=1\nB=2\n"),  # lines behind it
        ("{begin}\nOURS=1\n{end}\nA=1\n{begin}\nOURS=1\n{end}\n", "A=1\n"),  # copied
        ("A=1\n{begin}\nOURS=1\nB=2\n", "A=1\nB=2\n"),  # without its last line: only what is known to be ours goes
        ("A=1\n{end}\n", "A=1\n{end}\n"),  # only its last line
        ("A=1\n{begin} (the line above had no end)\nOURS=1\n{end}\nB=2\n", "A=1\nB=2\n"),
    ],
)
def test_a_block_that_somebody_edited_is_still_taken_out(edited: str, left: str) -> None:
    names = {"begin": BLOCK.begin, "end": BLOCK.end}
    assert take_out(edited.format(**names), BLOCK).text == left.format(**names)
