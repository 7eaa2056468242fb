"""Signs of life, by the clock: to systemd that the loop turns, to the teller what is in force."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Protocol

from sparkhost.watchdog.survive import Supervisor

if TYPE_CHECKING:
    from sparkhost.watchdog.loop import Watchdog

# Seconds between two signs of life to systemd, and between two states handed to the teller.
ALIVE_EVERY, STATE_EVERY = 1.0, 15.0


class Teller(Protocol):
    """Where events go. Returns at once; what cannot be taken is counted by it."""

    def tell(self, message: dict[str, Any]) -> None: ...

    def tend(self) -> None:
        """For calm times: sees that somebody listens."""


class Signs:
    """What is due now, and tells it."""

    def __init__(self) -> None:
        self.supervisor = Supervisor()
        self._alive = self._state = -STATE_EVERY

    def ask(self) -> None:
        """Somebody wants to see what came of a reload: the state is due."""
        self._state = -STATE_EVERY

    def beat(self) -> None:
        """For systemd, where a second has passed. Also in the middle of long work."""
        now = time.monotonic()
        if now - self._alive >= ALIVE_EVERY:
            self._alive = now
            self.supervisor.tell("WATCHDOG=1")

    def tell(self, watchdog: Watchdog, pause: float) -> None:
        """After each look; `pause`: seconds until the next one."""
        self.beat()
        now, look = time.monotonic(), watchdog.samples.look
        if now - self._state < STATE_EVERY:
            return
        self._state = now
        if look.available >= watchdog.policy.term_below:
            watchdog.teller.tend()
        watchdog.teller.tell(
            {
                "do": "state",
                "pid": os.getpid(),
                # CLOCK_BOOTTIME goes on while the host sleeps.
                "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
                "look": look,
                "pause": pause,
                "looks": watchdog.looks,
                "signals": watchdog.signals,
                "mistakes": watchdog.mistakes,
                "brake": watchdog.policy.brake,
                "paused": len(watchdog.samples.frozen),
                "dry_run": watchdog.dry_run,
                "gpu_note": watchdog.gpu.view().note,
                "policy": watchdog.config.policy,
                "protect": watchdog.config.preferences.protect,
                "prefer": watchdog.config.preferences.prefer,
                "refused": watchdog.refused,
            }
        )
