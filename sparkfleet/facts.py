"""Facts of a Spark for pyinfra: `pyinfra HOST fact sparkfleet.facts.GpuHolders`, or `host.get_fact(GpuHolders)`.

What a host answers is checked before anybody uses it: its size, its form, and that no text acts on
a terminal. `Plan` is the measure's own, made as the operation makes it: docs/one-measure.md says
what each returns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any, cast

from pyinfra.api.arguments import pop_global_arguments
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from sparkfleet import foreign
from sparkfleet.own_tasks import own_tasks

with own_tasks():
    from sparkfleet.operations.measure import begun, problems_in
    from tasks.lib import converge

MOST = 1024 * 1024
"""Most bytes of a file that are read on a host."""


class Plan(FactBase[dict[str, Any]]):
    """What a measure would change: `changes` (each `what`, `summary`, `diff`), `warnings`, `refused`, `error`.

    `settings`: the measure's keys in the fleet file, the defaults without. It needs root: `--sudo`,
    or `SUDO` in the configuration. From the shell: `pyinfra HOST fact sparkfleet.facts.Plan
    measure=swap settings='{"margin": "2GiB"}'`.
    """

    # pyinfra gives a fact's command no input, and sparkhost takes all it needs from there, so that nothing of it
    # shows in a process list. So the host is asked while the command is made, and the command itself says nothing.
    found: dict[str, Any] | None = None
    problems: Sequence[str] = ()

    def command(self, measure: str, settings: dict[str, Any] | None = None) -> str:
        host = converge.current_host()
        given = cast(Any, dict(host.current_op_global_arguments or {}))
        arguments, _ = pop_global_arguments(host.state, host, given)
        self.problems = problems_in(measure, settings or {})
        run = None if self.problems else begun(host, measure, settings or {}, arguments)
        if run:
            request = run.wanted.plan(run.wanted.measures[0]["name"])
            answer = converge.ask(host, run.way, measure, request, converge.PLAN_TIMEOUT)
            self.found = answer and joined(answer["plan"].values())
        return "echo"

    def process(self, output: list[str]) -> dict[str, Any]:
        """Raises FactProcessError: wrong settings, or a host that has not answered."""
        if self.found is None:
            raise FactProcessError("; ".join(self.problems) or "the host has not said what it would change")
        return self.found


def joined(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The plan of a measure from those of its parts: what comes before systemd's reload, and after it."""
    parts = list(parts)
    found = {key: [one for part in parts for one in part[key]] for key in ("changes", "warnings", "refused")}
    for change in found["changes"]:
        del change["needs"]
    return {**found, "error": "; ".join(part["error"] for part in parts if part["error"]) or None}


class Applied(FactBase[dict[str, Any]]):
    """What stands on a host and the last 30 deploys, as `sparkfleet` keeps it; {} where nothing was applied.

    Keys: `measures` (by name: at, by, version, result), `deploys`.
    """

    @staticmethod
    def default() -> dict[str, Any]:
        return {}

    def command(self) -> str:
        return f"test ! -e /var/lib/sparkfleet/applied.json || head -c {MOST} /var/lib/sparkfleet/applied.json"

    def process(self, output: list[str]) -> dict[str, Any]:
        """Raises FactProcessError: a file that is damaged."""
        try:
            found = foreign.plain(foreign.loads("\n".join(output)))
        except foreign.NotPlain as error:
            raise FactProcessError(f"/var/lib/sparkfleet/applied.json is {error}") from error
        if not isinstance(found, dict):
            raise FactProcessError("/var/lib/sparkfleet/applied.json is no mapping")
        return {key: found[key] for key in ("measures", "deploys") if key in found}


class GpuHolders(FactBase[list[dict[str, Any]]]):
    """Processes that hold GPU memory, by nvidia-smi: `pid`, `user`, `name`, `bytes`; [] without nvidia-smi.

    On a Spark that memory is the host's own: it is missing from MemAvailable. `bytes` is None where
    the driver does not say.
    """

    @staticmethod
    def default() -> list[dict[str, Any]]:
        return []

    def requires_command(self) -> str:
        return "nvidia-smi"

    def command(self) -> str:
        query = "nvidia-smi --query-compute-apps=pid,used_gpu_memory,process_name --format=csv,noheader,nounits"
        shown = 'echo "$(stat -c %U /proc/$pid 2>/dev/null),$pid,$rest"'
        return f"{query} | head -n 1000 | while IFS=, read -r pid rest; do {shown}; done"

    def process(self, output: list[str]) -> list[dict[str, Any]]:
        found = []
        for row in csv.reader(foreign.line(line) for line in output):
            if len(row) >= 4 and row[1].strip().isdecimal():
                size = row[2].strip()
                taken = int(size) * 2**20 if size.isdecimal() else None  # nvidia-smi counts in MiB
                name = ",".join(row[3:]).strip()
                found.append({"pid": int(row[1]), "user": row[0] or None, "name": name, "bytes": taken})
        return found


class SlicePressure(FactBase[dict[str, Any]]):
    """How much the jobs of a slice wait for memory (PSI): `some` and `full` with `avg10`, `avg60`, `avg300` in percent
    of the time, and `total` in microseconds; {} where there is no such slice.

    Source: memory.pressure of cgroup v2 (the kernel's Documentation/accounting/psi.rst).
    """

    @staticmethod
    def default() -> dict[str, Any]:
        return {}

    def command(self, slice: str = "training.slice") -> StringCommand:
        name = QuoteString(f"/sys/fs/cgroup/{slice}/memory.pressure")
        return StringCommand("test", "!", "-e", name, "||", "head", "-c", "4096", name)

    def process(self, output: list[str]) -> dict[str, Any]:
        """Raises FactProcessError: not what a kernel writes."""
        found: dict[str, Any] = {}
        try:
            for line in output:
                kind, *pairs = line.split()
                values = dict(pair.split("=", 1) for pair in pairs)
                found[kind] = {key: int(text) if key == "total" else float(text) for key, text in values.items()}
        except ValueError as error:
            raise FactProcessError("memory.pressure has another form than the kernel's") from error
        return found
