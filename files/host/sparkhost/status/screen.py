"""`spark-top --watch`: this host on its own terminal, in the look of `sparkfleet watch`.

What owners have named is printed as `parts` has made it plain; escape sequences are our own only.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any

from sparkhost.base.units import show_size
from sparkhost.status.reader import Reader

EVERY = 1.0
BAR = "█▓▒░▞▚▖▗"
"""A pattern an owner: nobody must tell colours apart."""
BOLD, DIM, RED, YELLOW, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[1;31m", "\x1b[33m", "\x1b[0m"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, TO_END_OF_LINE, TO_END = "\x1b[H", "\x1b[K", "\x1b[J"
QUIT = (b"q", b"\x1b", b"\x03")


def lines(seen: dict[str, Any], width: int, name: str) -> list[tuple[str, str]]:
    """What is shown: a style and a text each. `seen`: all that a `Reader` has said."""
    memory, floor = seen["memory"], seen["floor"]
    known = "unknown" if memory["gpu"] is None else show_size(memory["gpu"])
    head = f"{show_size(memory['available'])} available of {show_size(memory['total'])}"
    used = f"CPU {show_size(memory['cpu'])}, GPU {known}, free {show_size(memory['free'])}"
    is_short = floor["term"] is not None and memory["available"] < floor["term"]
    found = [(BOLD, f"● {name}  {time.strftime('%H:%M:%S')}"), (RED if is_short else "", f"{head}; {used}")]
    if floor["term"] is not None:
        found.append(
            (DIM, f"the watchdog asks below {show_size(floor['term'])}, kills below {show_size(floor['kill'])}")
        )
    bar, legend = owners(seen["owners"], max(1, memory["total"]), min(width, 100))
    found += [("", bar), ("", legend), ("", "")]
    found += table(seen["jobs"]) or [(DIM, "no job of the launcher runs")]
    found += [("", f"waits: {one['owner']} {one['jobs']}") for one in seen["waiting"]]
    found += [("", ""), *gpus(seen)]
    found += [(YELLOW, f"warning: {line}") for line in [floor["problem"], *seen["warnings"]] if line]
    if seen["reboot"]:
        found.append((YELLOW, f"a reboot is pending: {seen['reboot']}"))
    for event in seen["events"]:
        when = time.strftime("%m-%d %H:%M:%S", time.localtime(event["at"]))
        found.append(("" if event["event"] in ("term", "kill") else DIM, f"{when}  {event['text']}"))
    return found


def owners(listed: list[dict[str, Any]], total: int, width: int) -> tuple[str, str]:
    """Memory by owner as a bar, and what each pattern means."""
    bar, legend = "", []
    for pattern, one in zip(BAR, listed, strict=False):
        held = one["cpu"] + one["gpu"]
        bar += pattern * round(width * held / total)
        legend.append(f"{pattern} {one['owner']} {show_size(held)}")
    return bar[:width].ljust(width, "·"), "  ".join(legend)


def table(jobs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The jobs, in columns; nothing where there are none."""
    rows = [("JOB", "NAME", "OWNER", "PROMISE", "USE", "CPU", "GPU")]
    for job in jobs[:20]:
        promise = "-" if job["promise"] is None else show_size(job["promise"])
        gpu = "unknown" if job["gpu"] is None else show_size(job["gpu"])
        use = show_size(job["cpu"] + (job["gpu"] or 0))
        rows.append((job["id"], job["name"] or "-", job["owner"], promise, use, show_size(job["cpu"]), gpu))
    if len(rows) == 1:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    texts = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [(BOLD, texts[0]), *(("", text) for text in texts[1:])]


def gpus(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """Clocks and the warmest sensor, where they are known."""
    clocks = [f"{gpu['name']} {gpu['clock']} of {gpu.get('most', '?')} MHz" for gpu in seen["gpus"] if "clock" in gpu]
    warm = [] if seen["temperature"] is None else [f"{seen['temperature']} °C"]
    return [(DIM, ", ".join([*clocks, *warm]))] if clocks or warm else []


def frame(found: list[tuple[str, str]], width: int, height: int) -> str:
    """The lines as one screen: cut to its size, so that nothing scrolls."""
    foot = (DIM, "q quit; spark-why says why work was ended")
    shown = [*found[: height - 2], ("", ""), foot] if height > 3 else found[:height]
    drawn = "\r\n".join(f"{style}{text[:width]}{PLAIN}{TO_END_OF_LINE}" for style, text in shown)
    return f"{HOME}{drawn}{TO_END}"


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """A screen of our own, without echo; afterwards the terminal is as it was."""
    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0)
        sys.stdout.write(ENTER)
        yield
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def show() -> int:
    """Until q or Ctrl-C. Exit code 0."""
    reader = Reader()
    with contextlib.suppress(KeyboardInterrupt), terminal():
        while True:
            reader.look()
            size = shutil.get_terminal_size()
            sys.stdout.write(frame(lines(reader.seen, size.columns, socket.gethostname()), *size))
            sys.stdout.flush()
            if select.select([0], [], [], EVERY)[0] and os.read(0, 64)[:1] in (*QUIT, b""):
                break
    return 0
