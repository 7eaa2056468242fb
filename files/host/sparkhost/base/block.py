"""A block of ours in a text file that others write too: between two marker lines, at the end of the file.

Pure functions of text. `take_out(put_in(text, …))` is `text` again, byte for byte, whatever `text` was: what the block
had to change around itself is noted in its first line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Noted behind the first marker: what the file was like before us, where the block alone does not tell.
NEW_FILE = " (the file is new)"
NO_NEWLINE = " (the line above had no end)"


@dataclass(frozen=True)
class Block:
    """A block of this name, for assignments `NAME=value`."""

    name: str
    owned: tuple[str, ...] = ()
    """Variables that are known to be ours, should the block lose its last line."""

    @property
    def begin(self) -> str:
        return f"# begin: managed by sparkfleet (measure: {self.name})"

    @property
    def end(self) -> str:
        return f"# end: managed by sparkfleet (measure: {self.name})"


@dataclass(frozen=True)
class Split:
    """A file without its block."""

    text: str
    """What the others wrote."""
    found: bool
    """Whether there was a block."""
    new_file: bool
    """Whether the block's note says that there was no file before it."""


def take_out(content: str, block: Block) -> Split:
    """The file without its block, or blocks, should somebody have copied one.

    Where the last line of the block is missing (somebody's edit), what follows may be others' as well as ours:
    only the variables that the block owns go.
    """
    others: list[str] = []
    open_lines: list[str] = []
    inside = found = new_file = False
    for line in re.findall(r"[^\n]*\n|[^\n]+", content):  # splitlines() would part lines at form feeds, too
        bare = line.rstrip("\r\n")
        if bare.startswith(block.begin):
            inside = found = True
            note = bare.removeprefix(block.begin)
            new_file = new_file or note == NEW_FILE
            if note == NO_NEWLINE and others:
                others[-1] = others[-1].removesuffix("\n")
        elif inside and bare == block.end:
            inside = False
            open_lines = []
        else:
            (open_lines if inside else others).append(line)
    others += [line for line in open_lines if line.partition("=")[0] not in block.owned]
    return Split(_joined(others), found, new_file)


def _joined(lines: Sequence[str]) -> str:
    """Lines as one text; a line that lost its newline to `NO_NEWLINE` gets it back where something follows."""
    ended = [line if line.endswith("\n") else f"{line}\n" for line in lines[:-1]]
    return "".join([*ended, *lines[-1:]])


def put_in(content: str | None, lines: Sequence[str], block: Block) -> str:
    """The file with the block of these lines at its end; `content` None: there is no file."""
    rest = take_out(content or "", block)
    note = NEW_FILE if content is None or (rest.new_file and not rest.text) else ""
    text = rest.text
    if text and not text.endswith("\n"):
        note = NO_NEWLINE
        text += "\n"
    return text + "".join(f"{line}\n" for line in (block.begin + note, *lines, block.end))
