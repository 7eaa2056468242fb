"""What a record says of the choice, in words."""

from __future__ import annotations

from sparkhost.watchdog.choice import together
from sparkhost.watchdog.model import GIB, Candidate, Ground, Signal
from sparkhost.watchdog.report import told_grounds, why_this_one


def test_each_unit_of_a_victim_of_several_is_told_as_chosen() -> None:
    units = [Candidate(key, key, "job", f"/training.slice/{key}", anonymous=GIB) for key in ("one", "two")]
    taken = [Ground(key, key, GIB, 0, GIB, GIB) for key in ("one", "two")]
    grounds = (*taken, Ground("old", "old", 60 * GIB, 60 * GIB, 0, 0, promise=64 * GIB))
    lines = why_this_one(told_grounds(Signal("TERM", together(units), "because", grounds)))
    assert [line.split(":")[0] for line in lines] == ["Chosen", "Chosen", "Not chosen"]
    assert "held 60.0 GiB, 60.0 GiB of it for long, took 0 MiB" in lines[2]
    assert lines[2].endswith("64.0 GiB were promised to it.")
