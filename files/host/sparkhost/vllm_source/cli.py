"""`spark-vllm-source`: vLLM built on this host: which build is in use, how far the next one is. Changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.vllm_source import store as vllm_source_store
from sparkhost.vllm_source.record import Record, asked_for, log_of, read_record
from sparkhost.vllm_source.shell import any_text, one_line
from sparkhost.vllm_source.store import home

USAGE = """\
usage: spark-vllm-source [status] [--json]  the build in use, and each step of the one that was asked for last
       spark-vllm-source path               the environment of spark-vllm-python
       spark-vllm-source verify [BUILD]     reads every file: is it as it was when it was installed?

Nothing is changed. A job keeps the build that it was started with, also when another one is finished.
Exit code: 0, 1 no build is in use, or the last step failed, or (verify) something was changed, 2 a mistake on the
command line.

examples:
  spark-vllm-source
  spark-vllm-python -m vllm.entrypoints.cli.main serve MODEL
  journalctl -fu sparkfleet-vllm-source   what the running step prints"""
TAIL = 4096


@quiet_without_reader
def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0, 1 there is no build or one failed, 2 a wrong call."""
    any_text()
    match list(arguments):
        case [] | ["status"]:
            return shown(told())
        case ["--json"] | ["status", "--json"]:
            found = told()
            print(json.dumps(found))
            return code(found)
        case ["path"]:
            key = vllm_source_store.current()
            print(home(key) if key else "no vLLM was built here")
            return 0 if key else 1
        case ["verify"]:
            return verified(vllm_source_store.current())
        case ["verify", key]:
            return verified(key)
        case ["-h" | "--help"]:
            print(USAGE)
            return 0
    print(USAGE, file=sys.stderr)
    return 2


def told() -> dict[str, Any]:
    """The state of things, as --json prints it: `in_use` and `asked_for` are null where there are none."""
    key, wanted = vllm_source_store.current(), asked_for()
    manifest = vllm_source_store.read_manifest(key) if key else None
    record = read_record(wanted) if wanted else None
    return {
        "in_use": {"build": key, "commit": manifest.commit, "stack": manifest.stack} if manifest else None,
        "asked_for": asdict(record) if record else None,
        "log": str(log_of(wanted)) if record else None,
    }


def code(found: dict[str, Any]) -> int:
    steps = (found["asked_for"] or {}).get("steps", [])
    return 1 if not found["in_use"] or any(step["state"] == "failed" for step in steps) else 0


def shown(found: dict[str, Any]) -> int:
    use = found["in_use"]
    print(f"in use: {use['build']}, on the stack {use['stack']}" if use else "in use: none")
    record = read_record(asked_for())
    if record is None:
        print("no build was asked for, or it has not begun")
        return code(found)
    print(f"asked for: {record.key}, on the stack {record.stack}\n")
    print(table(record))
    stopped = record.stopped
    if stopped and stopped.state == "running":
        print(
            f"\nthe step {stopped.name} runs, or its host was reset; its last line:\n  {last_line(log_of(record.key))}"
        )
    if stopped:
        print(f"log: {log_of(record.key)}")
    return code(found)


def table(record: Record) -> str:
    """The steps, one a line: state, when, how long, exit status, what came of it."""
    rows = [("step", "state", "started (UTC)", "seconds", "exit", "")]
    for step in record.steps:
        when = step.started.removesuffix("+00:00").replace("T", " ")
        seconds = "" if step.state == "running" else f"{step.seconds:.1f}"
        rows.append((step.name, step.state, when, seconds, "" if step.status is None else str(step.status), step.note))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [row[c].rjust(widths[c]) if c in (3, 4) else row[c].ljust(widths[c]) for c in range(5)]
        lines.append("  ".join([*cells, row[5]]).rstrip())
    return "\n".join(lines)


def last_line(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return one_line(next((line for line in reversed(lines) if line.strip()), ""))


def verified(key: str) -> int:
    if key not in vllm_source_store.builds():
        print(f"spark-vllm-source: {key or 'current'} is not installed", file=sys.stderr)
        return 1
    wrong = vllm_source_store.changed(key)
    for line in wrong:
        print(line)
    print(f"{key}: {'nothing wrong' if not wrong else f'{len(wrong)} things wrong'}")
    return 1 if wrong else 0
