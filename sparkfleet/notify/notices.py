"""What is to be told now, by what was told before. Pure: states in, states and lines out.

A need is told when it is new, once more a day while it lasts, and when it is over. A host that is gone is
told when it was so at two looks: a reboot of the network is no news. There is an end to the messages of an hour;
what comes beyond it waits, and the next message says how much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sparkfleet.status.attention import Level, Need

AGAIN = 86_400.0
"""Seconds after which what lasts is told once more."""
HOUR, MOST = 3600.0, 12
"""How many messages an hour has at most."""
LINES = 20
"""Lines of a message; the others are counted."""
KINDS = ("kill", "gone", "memory", "heat", "watchdog", "warning", "audit", "drift")
ONCE = ("kill",)
"""What is never over."""
TWICE = ("gone",)
"""What must have been so at two looks."""


@dataclass
class Told:
    """One need of one host. `told`: when it was told last; 0: not yet."""

    text: str
    seen: float
    looks: int = 1
    told: float = 0.0


@dataclass
class State:
    """What was told: by host and key, and when the messages of the last hour went."""

    needs: dict[str, dict[str, Told]] = field(default_factory=dict)
    sent: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        needs = {host: {key: asdict(one) for key, one in found.items()} for host, found in self.needs.items()}
        return {"schema": 1, "needs": needs, "sent": self.sent}

    @classmethod
    def of(cls, value: Any) -> State:
        """Of JSON. Raises ValueError, KeyError or TypeError where it is none of ours."""
        needs = {
            str(host): {
                str(key): Told(str(one["text"]), float(one["seen"]), int(one["looks"]), float(one["told"]))
                for key, one in found.items()
            }
            for host, found in value["needs"].items()
        }
        return cls(needs, [float(at) for at in value["sent"]])


@dataclass(frozen=True)
class Message:
    """What is sent. `urgent`: something needs somebody now."""

    title: str
    lines: tuple[str, ...]
    urgent: bool


def seen(
    state: State, found: Mapping[str, Iterable[Need]], kinds: Iterable[str], now: float
) -> tuple[State, list[str]]:
    """The state after another look, and lines about what is over. Of hosts that were not looked at nothing changes."""
    wanted = frozenset(kinds)
    after = State({host: dict(one) for host, one in state.needs.items()}, [at for at in state.sent if now - at < HOUR])
    over: list[str] = []
    is_full = len(after.sent) >= MOST  # what is over is told when there is room for it
    for host, needs in found.items():
        listed = [need for need in needs if need.kind in wanted and is_news(need)]
        before = after.needs.pop(host, {})
        held: dict[str, Told] = {}
        # What a host that is gone would say of the rest, nobody knows.
        unseen = any(need.kind == "gone" for need in listed)
        for need in listed:
            old = before.get(key := key_of(need))
            held[key] = Told(need.text, now, old.looks + 1, old.told) if old else Told(need.text, now)
        for key, old in before.items():
            if key in held:
                continue
            if unseen or is_full:
                held[key] = old
            elif old.told and key.partition(" ")[0] not in ONCE:
                over.append(f"{host}: no longer: {old.text}")
        if held:
            after.needs[host] = held
    return after, over


def is_news(need: Need) -> bool:
    """What needs a look only is told where nothing else on the host would tell it."""
    return need.level is Level.ACT or need.kind in ("warning", "drift")


def key_of(need: Need) -> str:
    return f"{need.kind} {need.key}".rstrip()


def due(state: State, over: list[str], now: float) -> tuple[State, Message | None]:
    """The message that is to be sent now, and the state once it has been."""
    if len(state.sent) >= MOST:
        return state, None
    lines: list[str] = []
    needs: dict[str, dict[str, Told]] = {}
    for host, found in state.needs.items():
        needs[host] = {}
        for key, one in found.items():
            kind = key.partition(" ")[0]
            ripe = one.looks >= 2 if kind in TWICE else True
            again = one.told and kind not in ONCE and now - one.told >= AGAIN
            if ripe and (not one.told or again):
                lines.append(f"{host}: {'still: ' if again else ''}{one.text}")
                needs[host][key] = Told(one.text, one.seen, one.looks, now)
            else:
                needs[host][key] = one
    if not lines and not over:
        return state, None
    listed = [*lines, *over]
    title = f"sparkfleet: {listed[0]}" + (f" (+{len(listed) - 1})" if len(listed) > 1 else "")
    if len(listed) > LINES:
        listed = [*listed[:LINES], f"and {len(listed) - LINES} more: sparkfleet status"]
    if len(state.sent) == MOST - 1:
        listed.append(f"the last message of this hour, which has {MOST}: sparkfleet status")
    return State(needs, [*state.sent, now]), Message(title[:200], tuple(listed), bool(lines))
