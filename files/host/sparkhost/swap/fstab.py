"""Comments swap entries out of fstab(5) and back in, leaving every other byte as it is.

Pure functions of bytes: an fstab may hold anything, in any encoding, and none of it is ours.
"""

from __future__ import annotations

import re

# Stands before an entry of ours, which follows unchanged: removal strips it and has the line back.
MARKER = b"# swapped off by sparkfleet: "


def is_swap_entry(line: bytes) -> bool:
    """Whether a line of fstab is an entry of type swap: the third field (fstab(5)); blanks separate fields."""
    stripped = line.lstrip(b" \t")
    if stripped.startswith(b"#"):
        return False
    fields = re.split(rb"[ \t]+", stripped.rstrip(b" \t\r"))
    return len(fields) >= 3 and fields[2] == b"swap"


def comment_out(content: bytes) -> tuple[bytes, list[int]]:
    """The file with its swap entries commented out, and their line numbers (from 1)."""
    lines = content.split(b"\n")
    numbers = [number for number, line in enumerate(lines, 1) if is_swap_entry(line)]
    for number in numbers:
        lines[number - 1] = MARKER + lines[number - 1]
    return b"\n".join(lines), numbers


def put_back(content: bytes) -> tuple[bytes, list[int]]:
    """The file with the entries that we commented out active again, and their line numbers (from 1)."""
    lines = content.split(b"\n")
    numbers = [number for number, line in enumerate(lines, 1) if line.startswith(MARKER)]
    for number in numbers:
        lines[number - 1] = lines[number - 1].removeprefix(MARKER)
    return b"\n".join(lines), numbers
