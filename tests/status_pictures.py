"""The README's pictures of `sparkfleet watch`, of simulated hosts: `python -m tests.status_pictures`.

Writes docs/watch.svg (the terminal) and docs/watch.png (the page, in Chromium).
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sparkfleet.audit.collect import target_of
from sparkfleet.audit.store import Store
from sparkfleet.settings import load_fleet
from sparkfleet.status import fleet, table
from sparkfleet.status.records import Records
from sparkfleet.status.stream import Link, Streams
from sparkfleet.status.web import Board, Server
from tests.chromium import browser
from tests.doubles import sshd, status_host
from tests.doubles.status_host import GIB, Host
from tests.unit.audit_runs import large

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 168
SECONDS = 60
PEOPLE = ("ann", "bob", "chen", "dora")


def job(owner: str, name: str, promise: int, cpu: float, gpu: float) -> dict[str, Any]:
    id_ = f"{abs(hash((owner, name))) % 2**32:08x}"
    return {
        "id": id_,
        "owner": owner,
        "name": name,
        "promise": promise * GIB,
        "cpu": int(cpu * GIB),
        "gpu": int(gpu * GIB),
    }


def state(*jobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A host with these jobs."""
    cpu, gpu = sum(one["cpu"] for one in jobs), sum(one["gpu"] for one in jobs)
    owners = [{"owner": one["owner"], "cpu": one["cpu"], "gpu": one["gpu"]} for one in jobs]
    owners.append({"owner": "root", "cpu": 3 * GIB, "gpu": 0})
    used = cpu + gpu + 6 * GIB
    memory = {
        "total": 120 * GIB,
        "available": 120 * GIB - used,
        "free": 9 * GIB,
        "cpu": used - gpu,
        "gpu": gpu,
        "gpu_own": 0,
    }
    return status_host.says(jobs=list(jobs), owners=owners, memory=memory, **more)


def fleet_of_hosts() -> dict[str, Host]:
    killed = {**status_host.kill("job 5d1c9a02 (train.py)", "bob"), "at": time.time() - 34}
    killed["reason"] = "it was 11.2 GiB beyond its promise of 40.0 GiB"
    killed["text"] = (
        "memory watchdog: job 5d1c9a02 (train.py) (51.2 GiB) killed (SIGKILL); 14.9 GiB of memory are available"
    )
    return {
        "spark1": Host(state(job("ann", "sft", 60, 9, 38), job("chen", "eval", 20, 3, 12))),
        "spark2": Host(state(job("ann", "rl", 80, 20, 41), kill=killed, events=[killed])),
        "spark3": Host(state(job("dora", "pretrain", 100, 11, 72), waiting=[{"owner": "bob", "jobs": 2}])),
        "spark4": Host(state(job("chen", "vllm", 90, 6, 70), reboot="for linux-image-nvidia")),
        "spark5": Host(state(temperature=88)),
        "spark6": Host(state(job("bob", "lora", 30, 4, 17))),
    }


def moves(hosts: dict[str, Host], until: float) -> None:
    """Memory goes up and down as jobs do."""
    began = time.monotonic()
    ended: dict[str, Any] = {}
    while time.monotonic() < until:
        passed = time.monotonic() - began
        swing = 5 * math.sin(passed / 4)
        before = max(0.0, min(28.0, passed - 8)) if passed < 40 else 0.0
        jobs = [job("ann", "rl", 80, 20, 41 + swing)]
        jobs += [job("bob", "train", 40, 5, before)] if before else []
        told = state(*jobs)
        changed = {key: told[key] for key in ("jobs", "owners", "memory")}
        if passed >= 40 and not ended:
            ended = {**hosts["spark2"].state["kill"], "at": time.time()}
            changed |= {"kill": ended, "events": [ended]}
        hosts["spark2"].say(**changed)
        time.sleep(0.5)


def main() -> None:
    with ExitStack() as stack, browser() as tab:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = fleet_of_hosts()
        ports = {n: stack.enter_context(sshd.serving(h.command, kind=status_host.Server)) for n, h in hosts.items()}
        path = sshd.fleet_of(folder, {**ports, "spark7": 1}).rename(folder / "lab.yaml")
        run, controls = large(7, 24)
        names = dict(zip((host.name for host in run.hosts), [*ports, "spark7"], strict=False))
        run = replace(
            run,
            fleet_file=str(path),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            hosts=tuple(replace(one, name=names.get(one.name, one.name)) for one in run.hosts),
            verdicts=tuple(replace(one, host=names.get(one.host, one.host)) for one in run.verdicts),
        )
        Store(folder / "audits").append(run, controls)
        records = Records(path, store=folder / "audits")
        loaded = load_fleet(path)
        routes = [route for host in loaded.hosts if (route := target_of(host, loaded.known_hosts).route)]
        streams = stack.enter_context(Streams(routes))
        while not all(one.link in (Link.UP, Link.GONE) for one in streams.heard().values()):
            time.sleep(0.2)
        terminal(streams, replace(records))
        fleet.TRACE_EVERY = 0.4
        board = Board(streams, records)
        server = Server(board, 0)
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        until = time.monotonic() + SECONDS
        threading.Thread(target=moves, args=(hosts, until), daemon=True).start()
        while time.monotonic() < until - 1:
            board.look()
            time.sleep(0.4)
        tab.size(1280, 1000)
        tab.open(server.address())
        tab.until("document.querySelectorAll('#hosts tbody tr').length === 7")
        tab.click("tr[data-host=spark2] button")
        tab.until("document.querySelectorAll('#chart path.area').length > 1")
        tab.js("document.querySelector('#chart').scrollIntoView({block: 'center'}); scrollTo(0, 0)")
        tab.size(1280, 1080)
        time.sleep(0.5)
        (DOCS / "watch.png").write_bytes(tab.screenshot())
        server.over.set()


def terminal(streams: Streams, records: Records) -> None:
    """The terminal as SVG; without the audit, whose controls are made up."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    records = Records(records.fleet_file, store=records.fleet_file.parent / "none")
    found = fleet.views(streams.heard(), records)
    console.print(Text.assemble(("lab.yaml  ", "bold"), table.summary(found)))
    console.print()
    console.print(table.fleet(found, WIDTH, selected="spark2"))
    console.print()
    console.print(Text("↑↓ choose  Enter open  w why  l log  q quit", "dim"))
    console.save_svg(str(DOCS / "watch.svg"), title="sparkfleet watch")


if __name__ == "__main__":
    main()
