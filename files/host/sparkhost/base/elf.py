"""Which libraries an ELF file wants (DT_NEEDED), read from the file itself: nothing of it is loaded or run.

Only what GB10 and its servers have: 64 bits, little endian. The layout is elf(5)'s.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAGIC = b"\x7fELF"
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ = 0, 1, 5, 10
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM = struct.Struct("<IIQQQQQQ")
ENTRY = struct.Struct("<qQ")
# e_machine of elf(5), as uname(2) names them.
MACHINES = {62: "x86_64", 183: "aarch64"}
# More than any library has; a damaged file must not fill the memory.
MOST_BYTES = 64 * 2**20

# The libraries whose number is that of the CUDA release; wheels rename what they bring (libcudart-faf08d9a.so.12).
CUDA_12 = re.compile(r"lib(cudart|cublas|cublasLt|nvrtc|nvJitLink|cupti)([.-][0-9a-f]{4,40})?\.so\.1[12](\.|$)")


class BadElf(Exception):
    """An ELF file that is cut short, damaged, or of another kind than is read here."""


def is_elf(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    return head.startswith(MAGIC)


def needed(stream: BinaryIO) -> list[str]:
    """The names of the libraries that the file wants, in its order; none where it is not dynamic.

    Raises:
        BadElf: the file cannot be read as one.
    """
    header = exactly(stream, 0, HEADER.size)
    ident, _, _, _, _, table, _, _, _, entry_size, count, *_ = HEADER.unpack(header)
    if not is_elf(ident):
        raise BadElf("not an ELF file")
    if ident[4:6] != b"\x02\x01":
        raise BadElf("not of 64 bits and little endian")
    if count and entry_size != PROGRAM.size:
        raise BadElf(f"program headers of {entry_size} bytes")
    segments = [PROGRAM.unpack(exactly(stream, table + i * PROGRAM.size, PROGRAM.size)) for i in range(count)]
    dynamic = next((segment for segment in segments if segment[0] == PT_DYNAMIC), None)
    if dynamic is None:
        return []
    entries = list(dynamic_entries(exactly(stream, dynamic[2], dynamic[5])))
    names = [value for tag, value in entries if tag == DT_NEEDED]
    values = dict(entries)
    if not names:
        return []
    if DT_STRTAB not in values or DT_STRSZ not in values:
        raise BadElf("no table of strings")
    strings = exactly(stream, offset_of(values[DT_STRTAB], segments), values[DT_STRSZ])
    return [string_at(strings, name) for name in names]


def needed_by(path: Path) -> list[str]:
    """As `needed`, of a file of anybody's: one that is no regular file holds nobody up.

    Raises:
        BadElf: the file cannot be read as one.
        OSError: it cannot be opened.
    """
    with opened(path) as stream:
        return needed(stream)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file to read.

    Raises:
        BadElf: it is no regular file.
        OSError: it cannot be opened.
    """
    # A FIFO would block for ever without it (open(2)).
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # open() would refuse a directory, and leave it open
            raise BadElf("no regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.close(descriptor)


def machine_of(path: Path) -> str | None:
    """For which processor a file is, as uname(2) names it; None for another one, or no ELF file at all."""
    try:
        with opened(path) as stream:
            head = stream.read(HEADER.size)
    except (BadElf, OSError):
        return None
    if len(head) < HEADER.size or not is_elf(head):
        return None
    return MACHINES.get(HEADER.unpack(head)[2])


def exactly(stream: BinaryIO, offset: int, size: int) -> bytes:
    if size > MOST_BYTES:
        raise BadElf(f"a part of {size} bytes")
    try:
        stream.seek(offset)
    except (OverflowError, ValueError, OSError) as error:
        raise BadElf(f"a part at {offset}") from error
    data = stream.read(size)
    if len(data) != size:
        raise BadElf("cut short")
    return data


def dynamic_entries(data: bytes) -> Iterator[tuple[int, int]]:
    for tag, value in ENTRY.iter_unpack(data[: len(data) // ENTRY.size * ENTRY.size]):
        if tag == DT_NULL:
            return
        yield tag, value


def offset_of(address: int, segments: list[tuple[int, ...]]) -> int:
    """Where in the file an address of the loaded program lies."""
    for kind, _, offset, start, _, size, _, _ in segments:
        if kind == PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise BadElf("its strings are in no segment")


def string_at(strings: bytes, start: int) -> str:
    end = strings.find(b"\0", start)
    if not 0 <= start <= end:
        raise BadElf("a name outside of the table of strings")
    return strings[start:end].decode("utf-8", "backslashreplace")


def wants_cuda_12(names: list[str]) -> list[str]:
    """Those of the libraries that are of CUDA 12 or 11, by their names, renamed or not."""
    return [name for name in names if CUDA_12.match(name)]
