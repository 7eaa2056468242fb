"""What the hardware's timers said at each boot: the last boots, in one small file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, write_atomic
from sparkhost.base.resource import Failed

FILE = Path("/var/lib/sparkfleet/hardware-watchdog.json")
MOST = 20
"""Boots that are kept: about 4 KiB."""
RESET = 0x20
"""WDIOF_CARDRESET: the timer has reset the host (linux/watchdog.h)."""
CLASS = Path("/sys/class/watchdog")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def timers() -> list[dict[str, Any]]:
    """Each timer as the kernel has it (Documentation/ABI/testing/sysfs-class-watchdog)."""
    return [
        {
            "name": path.name,
            "identity": _text(path / "identity"),
            "bootstatus": int(_text(path / "bootstatus") or "0"),
            "timeout": int(_text(path / "timeout") or "0"),
        }
        for path in sorted(CLASS.glob("watchdog*"))
    ]


def _text(path: Path) -> str:
    """A file of sysfs; "" where this driver has none."""
    return bounded.read_text(path).strip() if path.exists() else ""


def boots() -> list[dict[str, Any]]:
    """What is kept, oldest first; nothing where there is no file, or it is none of ours."""
    try:
        found = json.loads(bounded.read_text(FILE))["boots"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, Failed):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def keep(now: str, seen: list[dict[str, Any]]) -> bool:
    """Notes this boot, once; whether it was new."""
    boot = bounded.read_text(BOOT_ID).strip()
    found = boots()
    if any(one.get("boot") == boot for one in found):
        return False
    found.append({"boot": boot, "at": now, "timers": seen})
    make_directories(FILE.parent)
    write_atomic(FILE, (json.dumps({"version": 1, "boots": found[-MOST:]}) + "\n").encode(), 0o644)
    return True
