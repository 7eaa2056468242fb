"""A mistake of ours costs a step, never the loop: shown by a teller, the edge to another process, that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparkhost.watchdog.config import Config
from sparkhost.watchdog.loop import Watchdog
from sparkhost.watchdog.model import MIB, Policy

MEMINFO = "MemTotal: 16000000 kB\nMemFree: {0} kB\nMemAvailable: {0} kB\n"


class Faulty:
    """Takes nothing of some kinds of messages."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        self.messages: list[dict[str, Any]] = []

    def tell(self, message: dict[str, Any]) -> None:
        if message.get("event", message.get("do")) in self.kinds:
            raise RuntimeError("a mistake")
        self.messages.append(message)

    def tend(self) -> None:
        """Nothing to tend."""


@pytest.mark.parametrize("kinds", [("helpless",), ("state",), ("helpless", "state", "record")])
def test_the_next_look_comes_whatever_telling_does(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text(MEMINFO.format(100_000))
    teller = Faulty(*kinds)
    config = Config(Policy(term_below=1000 * MIB, kill_below=500 * MIB))
    watchdog = Watchdog(
        config,
        teller,
        gpu_file=tmp_path / "none",
        proc=tmp_path / "proc",
        cgroup_root=tmp_path,
        record="record" in kinds,
    )
    for _ in range(3):
        assert 0 <= watchdog.step() <= 1, "nobody is there to end, memory is all but gone, and it goes on looking"
    if kinds == ("helpless",):
        assert watchdog.mistakes > 0
    if "record" not in kinds:
        assert watchdog.looks == 3
