"""Sums over /proc/meminfo: what can be had at once, and what nobody holds. Sizes in bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sparkhost.base.units import GIB, KIB

AT_ONCE = 2 * GIB
"""Less than this at once is short: so little was free when the driver refused with 22 GiB available."""
PROMISED = 8 * GIB
"""How much more MemAvailable must promise for it to be worth a word."""
UNACCOUNTED = 4 * GIB
"""More than this, beyond what the host's own devices took from the start, is lost memory."""
OWN = 2 * GIB
"""The most that is taken for the host's own: buffers of network cards, of which a Spark has fast ones."""

# What /proc/meminfo says is held, by kind (proc_meminfo(5)). Cached holds Shmem, that is tmpfs as well.
# VmallocUsed has the stacks in it once more: a sum that is too large warns too late, not too early.
EXPLAINED = (
    "MemFree",
    "Buffers",
    "Cached",
    "SwapCached",
    "AnonPages",
    "Slab",
    "KernelStack",
    "ShadowCallStack",
    "PageTables",
    "SecPageTables",
    "VmallocUsed",
    "Percpu",
    "Hugetlb",
    "Bounce",
    "Zswap",
    "Unaccepted",
    "Balloon",
    "HardwareCorrupted",
)


def parse(text: str) -> dict[str, int]:
    """/proc/meminfo; a line that is something else is left out."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([\w()]+):\s+(\d+) kB", line.rstrip())
        if match:
            found[match[1]] = int(match[2]) * KIB
    return found


def at_once(memory: Mapping[str, int]) -> int | None:
    """What can be had without waiting; None where meminfo does not say.

    MemFree, and of what MemAvailable promises beyond it no more than page cache and slab that are not
    shared memory, not dirty, not being written, and, at worst, not what is locked. Meminfo does not say
    *which* pages are locked: where they are anonymous this is too little, so it can only warn.
    """
    names = ("MemFree", "MemAvailable", "Cached")
    if any(name not in memory for name in names):
        return None
    free, available, cached = (memory[name] for name in names)
    cache = cached + memory.get("Buffers", 0) + memory.get("SReclaimable", 0)
    cache -= sum(memory.get(name, 0) for name in ("Shmem", "Dirty", "Writeback"))
    cache -= max(memory.get("Unevictable", 0), memory.get("Mlocked", 0))
    return free + max(0, min(available - free, cache))


def is_short(memory: Mapping[str, int]) -> bool:
    """Whether little can be had at once although MemAvailable promises much."""
    now = at_once(memory)
    return now is not None and now < AT_ONCE and memory["MemAvailable"] - now >= PROMISED


def unaccounted(memory: Mapping[str, int], *, gpu: int, charged: int, idle: int, zfs: int) -> int:
    """MemTotal less all that is explained; 0 where the rest is more than that.

    `gpu`: of all processes on GPUs that take their memory from the host's; `charged`: kernel pages that
    cgroups are charged with and meminfo does not list; `idle`: free pages that processors keep for
    themselves, which MemFree leaves out; `zfs`: the cache of ZFS, which is in none of the kinds.
    """
    held = sum(memory.get(name, 0) for name in EXPLAINED)
    # Reclaimable kernel memory beside slab (KReclaimable holds SReclaimable).
    held += max(0, memory.get("KReclaimable", 0) - memory.get("SReclaimable", 0))
    return max(0, memory.get("MemTotal", 0) - held - gpu - charged - idle - zfs)


def idle_pages(zoneinfo: str) -> int:
    """Pages on the lists of single processors, of /proc/zoneinfo.

    Since kernel 6.7 these lists may hold an eighth of all memory (mm/page_alloc.c, zone_highsize).
    """
    return sum(map(int, re.findall(r"^ +count: +(\d+)$", zoneinfo, re.MULTILINE)))


def charged(stat: str) -> int:
    """Kernel pages of a cgroup that meminfo does not list by kind, and its socket buffers; of memory.stat.

    Pages of pipes, and those that a driver takes for the process that asks (`__GFP_ACCOUNT`).
    """
    values = {name: int(size) for name, _, size in map(_pair, stat.splitlines()) if size.isdecimal()}
    listed = ("slab", "kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc")
    rest = values.get("kernel", 0) - sum(values.get(name, 0) for name in listed)
    return max(0, rest) + values.get("sock", 0)


def _pair(line: str) -> tuple[str, str, str]:
    return line.partition(" ")


def limit(base: int | None) -> int:
    """From how much on memory counts as lost. `base`: the least that was unaccounted since the boot."""
    return UNACCOUNTED + min(base or 0, OWN)
