"""`sparkfleet-hardware-watchdog MODULE`: loads the timer's driver where there is no timer, and keeps what it says."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from sparkhost.base import hardware
from sparkhost.base.pipes import quiet_without_reader
from sparkhost.base.resource import Context, Failed, Refused, one_line
from sparkhost.hardware_watchdog import kept
from sparkhost.hardware_watchdog.driver import TimerDriver


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1, with one line, where there is no timer."""
    parser = argparse.ArgumentParser(
        prog="sparkfleet-hardware-watchdog", description="Loads the timer's driver, and keeps what the timer says."
    )
    parser.add_argument("module", metavar="MODULE", help="kernel module, such as sbsa_gwdt")
    driver = TimerDriver(parser.parse_args(arguments).module)
    try:
        if driver.plan(Context()):
            driver.apply()
            print(f"sparkfleet-hardware-watchdog: {driver.module} is loaded", file=sys.stderr)
        seen = kept.timers()
        new = kept.keep(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), seen)
    except (Refused, Failed, OSError) as problem:
        print(f"sparkfleet-hardware-watchdog: {one_line(problem)}", file=sys.stderr)
        return 1
    for timer in seen if new else []:
        reset = timer["bootstatus"] & kept.RESET
        says = "it has reset this host" if reset else "it has not reset this host"
        priority = 4 if reset else 6  # warning, information: sd-daemon(3)
        print(
            f"<{priority}>sparkfleet-hardware-watchdog: {hardware.DEVICE} ({timer['identity']}): {says} before this "
            f"boot (bootstatus {timer['bootstatus']:#x})",
            file=sys.stderr,
        )
    return 0
