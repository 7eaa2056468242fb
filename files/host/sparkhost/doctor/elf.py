"""Which libraries a program or library asks the dynamic linker for: DT_NEEDED of its dynamic section (elf(5))."""

from __future__ import annotations

import os
import struct
from pathlib import Path

MAGIC = b"\x7fELF"
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ = 0, 1, 5, 10
# A name is a file's name: more than that is no library's, and no reason to read on.
LONGEST_NAME = 255
LARGEST_TABLE = 1 << 20


class NotElf(Exception):
    """No 64-bit little-endian ELF file, or a damaged one."""


def needed(path: Path) -> list[str]:
    """The names in DT_NEEDED, in order; none for a static program. Only headers and the dynamic section are read.

    Raises:
        NotElf: the file is no ELF file of x86_64 or aarch64, or is damaged.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _needed(descriptor)
    except (struct.error, OverflowError) as error:
        raise NotElf("a damaged ELF file") from error
    finally:
        os.close(descriptor)


def _needed(descriptor: int) -> list[str]:
    header = os.pread(descriptor, 64, 0)
    # EI_CLASS 2: 64 bits, EI_DATA 1: little-endian.
    if header[:4] != MAGIC or header[4:6] != b"\x02\x01":
        raise NotElf("no 64-bit little-endian ELF file")
    table, size, count = (
        struct.unpack_from("<Q", header, 32)[0],
        *struct.unpack_from("<HH", header, 54),
    )
    if size < 56:
        raise NotElf("a damaged ELF file")
    programs = os.pread(descriptor, size * count, table)
    loaded, dynamic = [], b""
    for number in range(count):
        kind, _, offset, address, _, length, _, _ = struct.unpack_from("<IIQQQQQQ", programs, number * size)
        if kind == PT_LOAD:
            loaded.append((address, offset, length))
        elif kind == PT_DYNAMIC:
            dynamic = os.pread(descriptor, min(length, LARGEST_TABLE), offset)
    names, strings, bytes_ = [], 0, 0
    for number in range(len(dynamic) // 16):
        tag, value = struct.unpack_from("<qQ", dynamic, number * 16)
        if tag == DT_NULL:
            break
        if tag == DT_NEEDED:
            names.append(value)
        elif tag == DT_STRTAB:
            strings = value
        elif tag == DT_STRSZ:
            bytes_ = value
    start = next((offset + strings - address for address, offset, length in loaded
                  if address <= strings < address + length), None)  # fmt: skip
    if names and start is None:
        raise NotElf("a damaged ELF file")
    return [_text(descriptor, (start or 0) + name) for name in names if name < bytes_]


def _text(descriptor: int, offset: int) -> str:
    return os.pread(descriptor, LONGEST_NAME + 1, offset).split(b"\0", 1)[0].decode(errors="replace")
