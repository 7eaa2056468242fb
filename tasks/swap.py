"""Swap off, now and for good.

Why: on a DGX Spark CPU and GPU share one memory. A job that outgrows it makes a host with swap write pages out
until nothing answers, SSH included; there is no BMC, so somebody walks over and pulls the plug. Without swap the job
dies instead.

Swap has more sources than /etc/fstab: `.swap` units, zram generators, and partitions that systemd finds by their GPT
type (systemd-gpt-auto-generator(8)). All of them end in swap units of systemd. One drop-in for *every* unit of type
swap (`swap.d/`, systemd.unit(5)) with a condition that never holds stops them all, whatever their names, and taking it
away brings them all back. fstab's entries are commented out as well: `swapon -a` does not ask systemd.
"""

from __future__ import annotations

from collections.abc import Sequence

from sparkfleet.settings import SwapSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.resource import Resource
from sparkhost.swap.swap import FstabSwap, SwapGuard, SwapOff, SwapOn
from tasks.lib.templates import render

# Drop-ins of all directories are read in the order of their names (systemd.unit(5)): ours comes late.
DROP_IN = "/etc/systemd/system/swap.d/zz-sparkfleet.conf"
# Never made, by anybody: the drop-in's condition looks for it.
CONDITION = "/etc/sparkfleet/swap-is-allowed"


def apply(settings: SwapSettings) -> Sequence[Resource]:
    """Off in fstab, off for systemd, off in the kernel. With `mode: keep` swap is left alone."""
    if settings.mode == "keep":
        return ()
    return (
        FstabSwap("off"),
        File(DROP_IN, render("swap/swap.d/zz-sparkfleet.conf", condition=CONDITION)),
        SwapOff(settings.margin),
        SwapGuard(DROP_IN, CONDITION),
    )


def remove(settings: SwapSettings) -> Sequence[Resource]:
    """The host's own swap again: entries back in fstab, the drop-in gone, and what was on is started."""
    return (FstabSwap("restored"), NoFile(DROP_IN), SwapOn())
