"""Scenarios by lot: some innocents of six kinds, small newcomers, and one that takes the memory, of nine kinds."""

from __future__ import annotations

import random
from typing import Any

from tests.bench.choice.run import Scenario

START = 3900


def drawn(count: int, seed: int) -> list[Scenario]:
    return [_one(random.Random(f"{seed}/{number}"), f"L{number}") for number in range(count)]


def _one(lot: random.Random, name: str) -> Scenario:
    innocents = [_innocent(lot, index) for index in range(lot.randint(2, 5))]
    # Their peaks together leave 20 to 40 GiB above the threshold's 16.
    peak = sum(max(value for _, value in unit["use"]) for unit in innocents)
    room = lot.uniform(60, 80)
    for unit in innocents:
        unit["use"] = [[at, value * room / peak] for at, value in unit["use"]]
    small = [
        {
            "n": f"small{index}",
            "owner": 1100 + index,
            "at": START - lot.uniform(0, 100),
            "use": [[0, 0], [lot.uniform(5, 40), lot.uniform(0.2, 1.5)]],
        }
        for index in range(lot.randint(0, 2))
    ]
    taker, until = _taker(lot)
    sampler = lot.choice([1, 1, 5, -1])
    if sampler < 0:
        taker["mem"] = "cpu" if lot.random() < 0.5 else taker["mem"]
    most = taker.get("count", 1) if not taker.get("restart") else 50
    return Scenario(
        name,
        f"by lot: {taker['kind_of']}",
        ["taker"],
        _units(innocents, small, taker),
        False,
        most,
        True,
        sampler,
        until,
    )


def _units(innocents: list[dict[str, Any]], small: list[dict[str, Any]], taker: dict[str, Any]) -> list[dict[str, Any]]:
    lot = [*innocents, *small, taker]
    return [{key: value for key, value in unit.items() if key != "kind_of"} for unit in lot]


def _innocent(lot: random.Random, index: int) -> dict[str, Any]:
    size = lot.uniform(5, 40)
    low = size * lot.uniform(0.3, 0.9)
    long = lot.choice([100, 300, 900])
    kinds: list[dict[str, Any]] = [
        {"use": [[0, 0], [60, size]]},
        {"use": [[0, 0], [60, size]], "mem": "gpu"},
        {"use": [[0, low], [long / 2, size], [long * 0.7, size], [long * 0.71, low], [long, low]], "every": long},
        {"use": [[0, low], [long * 0.9, low], [long * 0.93, size], [long * 0.97, size], [long, low]], "every": long},
        {"use": [[0, 0], [60, size], [4000, size * 1.01]]},
        {"use": [[0, low], [7, size], [13, low], [17, size], [20, low]], "every": 20, "kind": "session"},
    ]
    return {"n": f"innocent{index}", "owner": 1010 + index, "at": lot.uniform(0, 600), **lot.choice(kinds)}


def _taker(lot: random.Random) -> tuple[dict[str, Any], float]:
    rate = 0.05 * (16 / 0.05) ** lot.random()
    size = lot.uniform(50, 70)
    long = size / rate
    until = START + long + 120
    taker: dict[str, Any] = {"n": "taker", "owner": 1099, "at": START, "use": [[0, 0], [long, size]]}
    kind = lot.choice(["newcomer", "gpu", "deaf", "slow", "phase", "stairs", "swarm", "loop", "shared"])
    taker["kind_of"] = kind
    match kind:
        case "gpu":
            taker["mem"] = "gpu"
        case "deaf":
            taker["obey"] = -1
        case "slow":
            taker |= {"release": 4, "obey": 3}
        case "phase":
            taker |= {"at": 0, "use": [[0, 3], [START, 3], [START + long, size]]}
        case "stairs":
            taker["use"] = [
                point for step in range(15) for point in ([step * 5.0, step * 4.0], [step * 5.0 + 4.5, step * 4.0])
            ]
            until = START + 180
        case "swarm":
            taker |= {"count": 30, "apart": 0.3, "kind": "session", "use": [[0, 0], [20, size / 30]]}
            until = START + 150
        case "loop":
            taker["restart"] = 5
            until += 60
        case "shared":
            taker["mem"] = "shared"
    taker.setdefault("mem", "cpu")
    return taker, until
