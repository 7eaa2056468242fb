"""The fleet, and one host of it, for a terminal: what rich prints. Every text is text, never markup."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparkfleet.status.attention import Level, age, size
from sparkfleet.status.fleet import HostView, Traces
from sparkfleet.status.shape import HostSays, Job
from sparkfleet.status.stream import Link

GIB = 2**30
MARKS = {Link.ASKED: "…", Link.UP: "●", Link.LATE: "◐", Link.GONE: "○", Link.BROKEN: "✗"}
"""With the word beside it where it is not up: nobody must tell colours apart."""
STYLES = {Level.ACT: "bold red", Level.LOOK: "yellow"}
BAR = "█▓▒░▞▚▖▗"
"""A pattern an owner, for the same reason."""
SPARK = " ▁▂▃▄▅▆▇█"


class Column(NamedTuple):
    """`least`: columns of the terminal from which on it is shown."""

    title: str
    least: int
    right: bool = False


COLUMNS = (
    Column("HOST", 0),
    Column("AVAIL", 0, right=True),
    Column("OF", 100, right=True),
    Column("CPU", 90, right=True),
    Column("GPU", 70, right=True),
    Column("FREE", 150, right=True),
    Column("FLOOR", 150, right=True),
    Column("JOBS use/promise", 110),
    Column("WAIT", 130, right=True),
    Column("MHz", 140, right=True),
    Column("°C", 120, right=True),
    Column("LAST KILL", 190),
    Column("AUDIT", 160),
    Column("DRIFT", 175),
    Column("LINK", 210),
    Column("UP", 100, right=True),
    Column("RELEASE", 180),
    Column("WHAT NEEDS A PERSON", 0),
)


def gib(count: int | None) -> str:
    """GiB with a digit; "?" where nobody knows."""
    return "?" if count is None else f"{count / GIB:.1f}"


def job_word(job: Job) -> str:
    promise = "" if job.promise is None else f"/{job.promise / GIB:.0f}"
    return f"{job.owner} {job.use / GIB:.0f}{promise}"


def cells(view: HostView, now: float) -> dict[str, Text]:
    """The cells of a host's line, by title."""
    link = view.heard.link
    quiet = "dim" if link in (Link.GONE, Link.BROKEN, Link.ASKED) else ""
    word = "" if link is Link.UP else f" {link}"
    row = {"HOST": Text(f"{MARKS[link]} {view.name}{word}", quiet or "bold")}
    first = view.needs[0] if view.needs else None
    more = f" (+{len(view.needs) - 1})" if len(view.needs) > 1 else ""
    row["WHAT NEEDS A PERSON"] = Text(first.text + more, STYLES[first.level]) if first else Text("")
    row |= {title: Text(text, quiet) for title, text in _records(view, now).items()}
    if view.says is not None:
        row |= {title: Text(text, quiet) for title, text in _of(view.says, now).items()}
    return row


def _of(says: HostSays, now: float) -> dict[str, str]:
    memory = says.memory
    clock = next((f"{gpu.clock}" for gpu in says.gpus if gpu.clock is not None), "")
    warm = says.warmest
    down = [link.name for link in says.links if link.state != "active"]
    links = f"{len(says.links) - len(down)}/{len(says.links)}" if says.links else ""
    return {
        "AVAIL": gib(memory.available),
        "OF": gib(memory.total),
        "CPU": gib(memory.cpu),
        "GPU": gib(memory.gpu),
        "FREE": gib(memory.free),
        "FLOOR": gib(says.floor.term) if says.floor.term is not None else "none",
        "JOBS use/promise": ", ".join(job_word(job) for job in says.jobs[:6]) or "-",
        "WAIT": str(sum(one.jobs for one in says.waiting) or ""),
        "MHz": clock,
        "°C": "" if warm is None else str(warm),
        "LAST KILL": f"{age(now - says.kill.at)}: {says.kill.name}" if says.kill else "",
        "LINK": links,
        "UP": "" if says.up is None else age(says.up),
        "RELEASE": says.release.version[:12],
    }


def _records(view: HostView, now: float) -> dict[str, str]:
    found = {}
    if view.audit is not None:
        red = sum(view.audit.red.values())
        found["AUDIT"] = f"{f'{red} red' if red else 'ok'}, {age(now - view.audit.at)}"
    if view.drift is not None:
        found["DRIFT"] = f"{view.drift.state}, {age(now - view.drift.at)}"
    return found


def fleet(found: Sequence[HostView], width: int, selected: str = "", most: int | None = None) -> RenderableType:
    """A line a host. `selected`: the host with the cursor. `most`: lines, around the selected one."""
    shown = [column for column in COLUMNS if width >= column.least]
    table = Table(box=None, padding=(0, 1), header_style="bold", expand=True, pad_edge=False)
    for column in shown:
        wide = column.title in ("WHAT NEEDS A PERSON", "JOBS use/promise", "LAST KILL")
        ratio = {"WHAT NEEDS A PERSON": 3, "JOBS use/promise": 2, "LAST KILL": 1}.get(column.title)
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=ratio,
            min_width=8 if wide else None,
            max_width=28 if column.title == "HOST" else None,
        )
    now = time.time()
    at = next((index for index, view in enumerate(found) if view.name == selected), 0)
    first = 0 if most is None else max(0, min(at - most // 2, len(found) - most))
    for view in found[first : None if most is None else first + most]:
        row = cells(view, now)
        style = "reverse" if view.name == selected else ""
        table.add_row(*(row.get(column.title, Text("")) for column in shown), style=style)
    return table


def summary(found: Sequence[HostView]) -> Text:
    """The line above the table."""
    up = sum(view.heard.link is Link.UP for view in found)
    act = sum(any(need.level is Level.ACT for need in view.needs) for view in found)
    look = sum(bool(view.needs) for view in found) - act
    text = Text(f"{len(found)} hosts, {up} up")
    text.append(f", {act} need somebody now", STYLES[Level.ACT] if act else "dim")
    text.append(f", {look} a look", STYLES[Level.LOOK] if look else "dim")
    return text


def host(view: HostView, traces: Traces, width: int) -> RenderableType:
    """One host: what it needs, its memory by owner, its jobs, its last events."""
    parts: list[RenderableType] = [Text(f"{MARKS[view.heard.link]} {view.name}  {view.heard.link}", "bold")]
    for need in view.needs:
        parts.append(Text(f"  {need.level}: {need.text}", STYLES[need.level]))
    says = view.says
    if says is None:
        return Group(*parts, Text(view.heard.problem or "nothing was heard of it yet"))
    about = says.release
    up = "" if says.up is None else f", up {age(says.up)}"
    parts.append(Text(f"  {about.version or 'nothing deployed'} {about.at}, {about.system}, {about.kernel}{up}", "dim"))
    memory, floor = says.memory, says.floor
    known = "unknown" if memory.gpu is None else size(memory.gpu)
    line = f"{size(memory.available)} available of {size(memory.total)}; CPU {size(memory.cpu)}, GPU {known}"
    ends = f"; asks below {size(floor.term)}, kills below {size(floor.kill or 0)}" if floor.term is not None else ""
    parts += [Text(""), Text(line + ends), _bar(says, min(width - 2, 100)), *_traces(view, traces, width)]
    parts += [Text(""), _jobs(says), Text("")]
    parts += [Text(f"waits: {one.owner} {one.jobs}") for one in says.waiting]
    for event in says.events:
        when = datetime.fromtimestamp(event.at).astimezone().strftime("%m-%d %H:%M:%S")
        parts.append(Text(f"{when}  {event.text}", "" if event.event in ("term", "kill") else "dim"))
    if not says.events and not says.events_readable:
        parts.append(Text("events: only root reads them, and sudo asks for a password here", "dim"))
    return Group(*parts)


def _bar(says: HostSays, width: int) -> RenderableType:
    """Memory by owner as one bar, and what each pattern means."""
    total = max(1, says.memory.total)
    bar, legend = "", []
    for at, one in enumerate(says.owners[: len(BAR)]):
        held = one.cpu + one.gpu
        bar += BAR[at] * round(width * held / total)
        legend.append(f"{BAR[at]} {one.owner} {size(held)}")
    return Group(Text(bar[:width].ljust(width, "·")), Text("  ".join(legend)))


def _traces(view: HostView, traces: Traces, width: int) -> Iterator[Text]:
    """What was available, over the last minutes and, where the host keeps it, over the last day."""
    wide = max(10, width - 40)
    points = [(at, available) for at, available, _ in traces.points.get(view.name, ())]
    day = [(at, available) for at, available, _, _ in view.heard.day.rows()]
    total = view.says.memory.total if view.says is not None else 0
    for listed in (points, day):
        if len(listed) > 1:
            least = min(available for _, available in listed)
            text = (
                f"{spark(listed, wide, total)} available in {age(listed[-1][0] - listed[0][0])}, at least {size(least)}"
            )
            yield Text(text, "dim")


def spark(points: Sequence[tuple[float, int]], width: int, total: int) -> str:
    """A line of blocks, each the least of its time: what matters is how near it came to nothing."""
    began, long = points[0][0], max(points[-1][0] - points[0][0], 1e-9)
    lowest: dict[int, int] = {}
    for at, available in points:
        place = min(width - 1, max(0, int(width * (at - began) / long)))
        lowest[place] = min(available, lowest.get(place, available))
    most = len(SPARK) - 1
    # Where nothing was told (the host was off) there is a gap.
    return "".join(
        SPARK[max(1, min(most, round(most * lowest[place] / max(1, total))))] if place in lowest else " "
        for place in range(width)
    )


def _jobs(says: HostSays) -> RenderableType:
    if not says.jobs:
        return Text("no job of the launcher runs", "dim")
    table = Table(box=None, padding=(0, 1), header_style="bold", pad_edge=False)
    for title in ("JOB", "NAME", "OWNER", "PROMISE", "USE", "CPU", "GPU"):
        table.add_column(title, justify="left" if title in ("JOB", "NAME", "OWNER") else "right", no_wrap=True)
    for job in says.jobs[:20]:
        promise = "-" if job.promise is None else size(job.promise)
        gpu = "unknown" if job.gpu is None else size(job.gpu)
        words = (job.id, job.name or "-", job.owner, promise, size(job.use), size(job.cpu), gpu)
        table.add_row(*map(Text, words))
    return table


def why(says: HostSays | None) -> RenderableType:
    """Why the watchdog ended the last ones."""
    lines = [line for event in (says.events if says else []) for line in (*event.why, *([""] if event.why else []))]
    return Text("\n".join(lines) or "the watchdog has ended nothing here that can be read")
