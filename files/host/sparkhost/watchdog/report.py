"""Events as values: what the loop hands to the teller, and the words that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sparkhost.watchdog.model import GIB, MIB, Candidate, Look, Policy, Signal

# Of all candidates, how many are kept in a record: enough to see whether it was the right one.
MOST_LISTED = 10
# Characters of a name and of a cgroup in a record. Each may take 6 bytes there, and all must fit into one message.
LONGEST_NAME, LONGEST_PATH = 200, 400


def event(
    kind: str,
    look: Look,
    policy: Policy,
    *,
    victim: Candidate | None = None,
    candidates: Sequence[Candidate] = (),
    **more: Any,
) -> dict[str, Any]:
    """Every number that led to a decision. `kind`: term, kill, landed, helpless, started …"""
    ranked = sorted(candidates, key=lambda c: c.size, reverse=True)
    return {
        "event": kind,
        "look": asdict(look),
        "policy": asdict(policy),
        "victim": None if victim is None else brief(victim),
        "candidates": [brief(candidate) for candidate in ranked[:MOST_LISTED]],
        "candidates_in_all": len(ranked),
        **more,
    }


def brief(candidate: Candidate) -> dict[str, Any]:
    """A candidate for a record, cut: names and cgroups are their owners', and as long as they like."""
    parts = [part.name[: LONGEST_NAME // 2] for part in candidate.parts[: MOST_LISTED // 2]]
    cut = replace(
        candidate,
        key=candidate.key[:LONGEST_PATH],
        name=candidate.name[:LONGEST_NAME],
        cgroup=candidate.cgroup[:LONGEST_PATH],
        freezer="",
        roots=candidate.roots[:MOST_LISTED],
        parts=(),
    )
    return {**asdict(cut), "parts": parts, "size": candidate.size}


def signalled(action: Signal, dry: bool) -> str:
    verb = {"TERM": "asked to end (SIGTERM)", "KILL": "killed (SIGKILL)"}[action.stage]
    return f"{'would be ' if dry else ''}{verb}: {action.reason}"


def told_grounds(action: Signal) -> list[dict[str, Any]]:
    """What spoke for and against each candidate that was considered, for a record."""
    chosen = {unit.key for unit in action.victim.units}
    return [{**asdict(ground), "chosen": ground.key in chosen} for ground in action.grounds]


def amount(size: float) -> str:
    """For a person: `12.3 GiB`, `512 MiB`."""
    return f"{size / GIB:.1f} GiB" if abs(size) >= GIB else f"{size / MIB:.0f} MiB"


def plain(text: str) -> str:
    """Without anything that a terminal acts on: names of processes are chosen by their owners."""
    return "".join(c if c.isprintable() else "?" for c in text)


def listed_pauses(paused: Sequence[Mapping[str, Any]]) -> str:
    """`job 12 (3.2 s), and 4 more`."""
    shown = [
        f"{pause['names'][0] if pause['names'] else pause['cgroup']} ({pause['seconds']:.1f} s)" for pause in paused
    ]
    return ", ".join(shown[:4]) + (f", and {len(shown) - 4} more" if len(shown) > 4 else "")


def headline(record: Mapping[str, Any]) -> str:
    """The event in one line."""
    victim = record["victim"]
    available = amount(record["look"]["available"])
    if paused := record.get("paused"):
        did = "was paused for a moment" if record["event"] == "paused" else "goes on after a pause"
        return plain(f"memory watchdog: {listed_pauses(paused)} {did}: {record['reason']}; {available} are available")
    if victim is None:
        return plain(f"memory watchdog: {record.get('reason', record['event'])}; {available} of memory are available")
    did = {
        "term": "asked to end (SIGTERM)",
        "kill": "killed (SIGKILL)",
        "landed": "has ended" if record.get("gone") else "was given up",
    }.get(record["event"], record["event"])
    would = "would be " if record.get("dry_run") and record["event"] in ("term", "kill") else ""
    return plain(
        f"memory watchdog: {victim['name']} ({amount(victim['size'])}) {would}{did}; "
        f"{available} of memory are available"
    )


def why_this_one(grounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why this one and not the others: what each held, what of that was its own, what it took."""
    return [
        f"{'Chosen' if ground['chosen'] else 'Not chosen'}: {ground['name']}: held {amount(ground['held'])}, "
        f"{amount(ground['own'])} of it for long, took {amount(ground['taken'])} that others needed, "
        f"grew by {amount(ground['grown'])} in a minute"
        + (f"; {amount(ground['promise'])} were promised to it" if ground["promise"] is not None else "")
        + "."
        for ground in grounds[:5]
    ]


def explain(record: Mapping[str, Any]) -> list[str]:
    """The event in plain words, a line each."""
    victim, look, policy = record["victim"], record["look"], record["policy"]
    lines = [f"{record.get('when', '')} on {record.get('host', 'this host')}: {headline(record)}."]
    if record.get("dry_run"):
        lines.append("This was a dry run: nothing was really signalled.")
    if victim is not None:
        lines.append(
            f"It held about {amount(victim['size'])}: {amount(victim['gpu'])} on the GPU, "
            f"{amount(victim['anonymous'])} of its own, {amount(victim['shared'])} shared, "
            f"in {victim['processes']} processes."
        )
    if "reason" in record:
        lines.append(f"Why: {record['reason']}.")
    lines.append(
        f"Of {amount(look['total'])} there were {amount(look['available'])} available, changing by "
        f"{amount(look['slope'])} a second. Work is asked to end below {amount(policy['term_below'])} and killed below "
        f"{amount(policy['kill_below'])}: this host shares its memory with the GPU, and freezes when none is left."
    )
    if record.get("left_out"):
        lines.append(f"{record['left_out']} messages before this one were left out: telling did not keep up.")
    if record.get("gpu_note"):
        lines.append(f"GPU memory was not counted: {record['gpu_note']}.")
    lines += why_this_one(record.get("grounds") or ())
    others = [c for c in record["candidates"] if victim is None or c["key"] != victim["key"]]
    if victim is not None and others:
        shown = ", ".join(
            f"{c['name']} ({amount(c['size'])}{', protected' if c['protected'] else ''})" for c in others[:4]
        )
        lines.append(f"What else ran: {shown}.")
    if victim is not None:
        lines.append(
            "To avoid it: a smaller batch or model, or fewer jobs at once (docs/watchdog.md: how victims are chosen)."
        )
    return [plain(line) for line in lines]
