"""A file of fixed size with what was so each second, for whoever asks afterwards why a host died.

How it works. The file is written once, zeros and all, and never grows, so a sample changes no metadata:

    block 0         a line that says what this is, then zeros
    blocks 1 …      SECONDS samples, one a second: the last 16 minutes
    the rest        MINUTES samples, one a minute: the last 24 hours, each the worst of its minute

A sample has 256 bytes, so none lies across two sectors of 512, and ends with a checksum. Its place is its
number modulo the ring's length; the highest sound number is the last sample. What a power cut has torn has
a wrong checksum and is left out: one sample, never the ring.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sparkhost.base import small_files

PATH = "/var/lib/sparkfleet/observer/ring"
BLOCK = 4096
RECORD = 256
SECONDS, MINUTES = 960, 1440
SIZE = BLOCK + (SECONDS + MINUTES) * RECORD
"""618,496 bytes."""
TITLE = b"sparkfleet: samples of this host, for `spark-why --last-boot`. Layout 1.\n"
MAGIC, LAYOUT = 0x5B4B, 1
SECOND, MINUTE, STOP = 0, 1, 2
"""Kinds. STOP: the observer was told to end, as in a shutdown; it stands among the seconds."""
MOST_HOLDERS = 5
KIB = 1024
NONE16, NONE32 = 0xFFFF, 0xFFFFFFFF
"""Not known."""
# magic, layout, kind; number; wall clock, CLOCK_BOOTTIME; boot id; five sizes in KiB; seven small figures; two counts.
HEAD = struct.Struct("<HBBQdd16s5I7H2I")
HOLDER = struct.Struct("<III16s")
SUM = struct.Struct("<I")


@dataclass(frozen=True)
class Holder:
    """A process that held much. Sizes in bytes: `own` is what /proc says is resident, `gpu` what the driver says."""

    pid: int
    name: str
    own: int
    gpu: int


@dataclass(frozen=True)
class Sample:
    """The host at one moment; None is what nobody could say. Sizes in bytes, pressure in percent of the last 10 s."""

    time: float
    """Seconds since 1970, by the host's clock."""
    boottime: float
    """Seconds since the host was started, sleep included."""
    boot: str
    """The kernel's id of that boot, 32 hex digits."""
    kind: int = SECOND
    total: int | None = None
    available: int | None = None
    free: int | None = None
    at_once: int | None = None
    swap_free: int | None = None
    full: float | None = None
    """Share of the time in which all tasks waited for memory."""
    some: float | None = None
    """Share in which at least one did."""
    clock: int | None = None
    """Of the GPU's streaming multiprocessors, MHz."""
    clock_most: int | None = None
    heat: float | None = None
    """The hottest of the kernel's thermal zones, °C."""
    gpu_heat: float | None = None
    load: float | None = None
    """The load average of a minute."""
    refused: int | None = None
    """Lines since the start in which the driver says that it was refused memory."""
    bursts: int | None = None
    holders: tuple[Holder, ...] = ()
    """The largest, the largest first."""
    number: int = 0


SIZES = ("total", "available", "free", "at_once", "swap_free")
SMALL = {"full": 100, "some": 100, "clock": 1, "clock_most": 1, "heat": 10, "gpu_heat": 10, "load": 10}
"""By what each is multiplied to be a whole number."""
COUNTS = ("refused", "bursts")


def pack(sample: Sample) -> bytes:
    """A sample as the file has it."""
    sizes = [_whole(getattr(sample, name), 1 / KIB, NONE32) for name in SIZES]
    small = [_whole(getattr(sample, name), factor, NONE16) for name, factor in SMALL.items()]
    counts = [_whole(getattr(sample, name), 1, NONE32) for name in COUNTS]
    head = (MAGIC, LAYOUT, sample.kind, sample.number, sample.time, sample.boottime, bytes.fromhex(sample.boot))
    data = HEAD.pack(*head, *sizes, *small, *counts)
    for holder in sample.holders[:MOST_HOLDERS]:
        own, gpu = (_whole(size, 1 / KIB, NONE32) for size in (holder.own, holder.gpu))
        data += HOLDER.pack(holder.pid, own, gpu, holder.name.encode()[:16])
    data = data.ljust(RECORD - SUM.size, b"\0")
    return data + SUM.pack(zlib.crc32(data))


def _whole(value: float | None, factor: float, none: int) -> int:
    return none if value is None else max(0, min(int(value * factor), none - 1))


def unpack(data: bytes) -> Sample | None:
    """The sample in RECORD bytes; None where there is none, or a torn one."""
    if len(data) != RECORD or SUM.pack(zlib.crc32(data[: -SUM.size])) != data[-SUM.size :]:
        return None
    magic, layout, kind, number, time, boottime, boot, *figures = HEAD.unpack_from(data)
    if (magic, layout) != (MAGIC, LAYOUT):
        return None
    values = dict(zip((*SIZES, *SMALL, *COUNTS), figures, strict=True))
    known: dict[str, float] = {}
    known |= {name: values[name] * KIB for name in SIZES if values[name] != NONE32}
    known |= {name: values[name] / factor for name, factor in SMALL.items() if values[name] != NONE16}
    known |= {name: values[name] for name in COUNTS if values[name] != NONE32}
    holders = tuple(_holders(data[HEAD.size : HEAD.size + MOST_HOLDERS * HOLDER.size]))
    return Sample(time, boottime, boot.hex(), kind, **known, holders=holders, number=number)  # type: ignore[arg-type]


def _holders(data: bytes) -> Iterator[Holder]:
    for pid, own, gpu, name in HOLDER.iter_unpack(data):
        if pid:
            yield Holder(pid, name.rstrip(b"\0").decode(errors="replace"), own * KIB, gpu * KIB)


def worse(one: Sample, other: Sample) -> Sample:
    """What is kept of two samples of a minute: the lowest of what is left, the highest of what presses."""
    lowest = ("available", "free", "at_once", "swap_free", "clock")
    highest = ("full", "some", "heat", "gpu_heat", "load", "refused", "bursts")
    chosen: dict[str, float | None] = {}
    for names, of in ((lowest, min), (highest, max)):
        for name in names:
            known = [value for sample in (one, other) if (value := getattr(sample, name)) is not None]
            chosen[name] = of(known) if known else None
    scarce = min(one, other, key=lambda sample: float("inf") if sample.available is None else sample.available)
    return replace(other, **chosen, holders=scarce.holders)  # type: ignore[arg-type]


class Ring:
    """The file, open for its one writer."""

    def __init__(self, path: Path) -> None:
        """Opens it, made anew where it is not of this layout, and goes on behind its last samples.

        Raises:
            OSError: it can be neither opened nor made.
        """
        if not _fits(path):
            _make(path)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        seconds, minutes = read(str(path))
        self._next = [_after(seconds), _after(minutes)]

    def write(self, sample: Sample) -> None:
        """Puts a sample behind the last of its ring; on the disk it is after `sync`.

        Raises:
            OSError: it cannot be written.
        """
        which = int(sample.kind == MINUTE)
        number, self._next[which] = self._next[which], self._next[which] + 1
        place = SECONDS + number % MINUTES if which else number % SECONDS
        os.pwrite(self.descriptor, pack(replace(sample, number=number)), BLOCK + place * RECORD)

    def sync(self) -> None:
        """Waits until all is on the disk, past the drive's own cache (fdatasync(2)).

        Raises:
            OSError: the disk refuses.
        """
        os.fdatasync(self.descriptor)


def _after(samples: list[Sample]) -> int:
    return samples[-1].number + 1 if samples else 0


def _fits(path: Path) -> bool:
    """Whether a file of this layout is there, and nothing else in its place."""
    try:
        found = path.lstat()
        return (
            stat.S_ISREG(found.st_mode) and found.st_size == SIZE and small_files.read(str(path), len(TITLE)) == TITLE
        )
    except OSError:
        return False


def _make(path: Path) -> None:
    """A file of zeros: blocks that are written, not only reserved, cost no journal entry later.

    For root only: the names of everybody's processes are in it, which a host may hide (hidepid=, proc(5)).
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(TITLE.ljust(SIZE, b"\0"))
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def read(path: str = PATH) -> tuple[list[Sample], list[Sample]]:
    """The seconds, STOP among them, and the minutes, each in order; also while the observer writes.

    Raises:
        OSError: it cannot be opened or read.
    """
    data = small_files.read(path, SIZE, flags=os.O_NOFOLLOW)
    found: tuple[list[Sample], list[Sample]] = ([], [])
    for place in range(SECONDS + MINUTES):
        begin = BLOCK + place * RECORD
        sample = unpack(data[begin : begin + RECORD])
        if sample:
            found[sample.kind == MINUTE].append(sample)
    for samples in found:
        samples.sort(key=lambda sample: sample.number)
    return found
