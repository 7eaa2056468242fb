"""Write a GUID partition table into a raw disk image (no loop device, no root, no sfdisk)."""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
ALIGN = 1024 * 1024
_ENTRIES = 128
_ENTRY_SIZE = 128
_ARRAY_SECTORS = _ENTRIES * _ENTRY_SIZE // SECTOR

TYPE_LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
TYPE_SWAP = uuid.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")
TYPE_ROOT = {
    "amd64": uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    "arm64": uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"),
}


@dataclass(frozen=True)
class Partition:
    """One partition; `start` and `size` in bytes, both multiples of 1 MiB."""

    name: str
    type: uuid.UUID
    guid: uuid.UUID
    start: int
    size: int


def disk_size(partitions: list[Partition]) -> int:
    """Bytes of a disk that holds these partitions and both copies of the table."""
    return max(part.start + part.size for part in partitions) + ALIGN


def _entry(part: Partition) -> bytes:
    if part.start % ALIGN or part.size % ALIGN:
        raise ValueError(f"partition {part.name}: start and size must be multiples of 1 MiB")
    first = part.start // SECTOR
    last = (part.start + part.size) // SECTOR - 1
    name = part.name.encode("utf-16-le").ljust(72, b"\0")
    return struct.pack("<16s16sQQQ72s", part.type.bytes_le, part.guid.bytes_le, first, last, 0, name)


def table(disk_guid: uuid.UUID, partitions: list[Partition], size: int) -> tuple[bytes, bytes]:
    """The bytes for the start of the disk (protective MBR, header, entries) and for its end (backup)."""
    sectors = size // SECTOR
    entries = b"".join(_entry(part) for part in partitions).ljust(_ENTRIES * _ENTRY_SIZE, b"\0")

    def header(own: int, other: int, array: int) -> bytes:
        def pack(checksum: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII",
                b"EFI PART",
                0x00010000,
                92,
                checksum,
                0,
                own,
                other,
                2 + _ARRAY_SECTORS,
                sectors - _ARRAY_SECTORS - 2,
                disk_guid.bytes_le,
                array,
                _ENTRIES,
                _ENTRY_SIZE,
                zlib.crc32(entries),
            )

        return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")

    protective = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, min(sectors - 1, 0xFFFFFFFF))
    mbr = b"\0" * 446 + protective.ljust(64, b"\0") + b"\x55\xaa"
    front = mbr + header(1, sectors - 1, 2) + entries
    back = entries + header(sectors - 1, 1, sectors - 1 - _ARRAY_SECTORS)
    return front, back


def write(image: Path, disk_guid: uuid.UUID, partitions: list[Partition]) -> None:
    """Write the table into `image`, growing it to `disk_size(partitions)`; file systems in it stay."""
    size = disk_size(partitions)
    front, back = table(disk_guid, partitions, size)
    with image.open("r+b") as disk:
        disk.truncate(size)
        disk.write(front)
        disk.seek(size - len(back))
        disk.write(back)
