"""A fleet's deploy beside Ansible's, side by side. `python -m tests.bench.fleet --simulated 1 20 100 --rtt 0 20`

`--simulated`: hosts of tests/bench/ssh_hosts.py, on which nothing differs: converged reruns and dry runs.
`--lab`: real lab hosts (tests.lab): the first run, the rerun, a drift repaired, the dry run, and the same audit for
both end states. docs/fleet-bench.md says what is compared, and what a simulation leaves out.

Rounds alternate between all contenders, so that a busy machine slows all of them; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sparkfleet.settings import HostSettings
from tests.bench import contenders, fleet_lab
from tests.bench.ansible import generate
from tests.bench.contenders import Contender
from tests.bench.figures import growth, median_ratio
from tests.bench.process_tree import Cost
from tests.bench.simulated import FIRST_PORT, BenchError, SimulatedFleet
from tests.integration.deploying import LAB_SETTINGS
from tests.lab import LabError

MIB = 2**20
SIMULATED = ("rerun", "dry run")
"""What can be asked of hosts on which nothing differs."""


@dataclass(frozen=True)
class Figure:
    """One contender at one task on so many hosts."""

    what: str
    """rerun, dry run, first run, drift repaired."""
    who: str
    hosts: int
    rtt: float
    """Seconds of added round trip."""
    wall: float
    """Seconds, the median of the rounds."""
    cpu: float
    """Seconds of the controller's processor per host."""
    memory: float
    """MiB at the peak, of all the controller's processes."""
    commands: float | None
    """SSH commands per host; None: not counted."""
    ratio: float
    """Its wall time over sparkfleet's at the same task, median over the rounds."""
    rounds: int


def figures(
    what: str, costs: dict[str, list[Cost]], hosts: int, rtt: float, sent: dict[str, float] | None = None
) -> Iterator[Figure]:
    """One for each contender, from what the rounds cost. Sparkfleet is one of them."""
    ours = [cost.wall for cost in costs["sparkfleet"]]
    for who, listed in costs.items():
        walls = [cost.wall for cost in listed]
        yield Figure(
            what,
            who,
            hosts,
            rtt,
            wall=statistics.median(walls),
            cpu=statistics.median(cost.cpu for cost in listed) / hosts,
            memory=max(cost.memory for cost in listed) / MIB,
            commands=(sent or {}).get(who),
            ratio=median_ratio(walls, ours[: len(walls)]),
            rounds=len(walls),
        )


def rounds(
    who: Sequence[Contender], count: int, *, dry: bool, after: Callable[[Contender, Cost], None]
) -> dict[str, list[Cost]]:
    """What each costs, in turn; `after` looks at each run. Raises BenchError where one fails."""
    costs: dict[str, list[Cost]] = {}
    for _ in range(count):
        for contender in who:
            if not dry or contender.dry is not None:
                cost = contender.run(dry=dry)
                after(contender, cost)
                costs.setdefault(contender.name, []).append(cost)
    return costs


def simulated(options: argparse.Namespace, hosts: int, rtt: float, directory: Path) -> Iterator[Figure]:
    """Reruns and dry runs on simulated hosts. Raises BenchError, also where a converged host was told to change."""
    generated = directory / "ansible"
    generate.write(HostSettings.model_validate(LAB_SETTINGS), generated)
    fleet = SimulatedFleet(
        directory,
        hosts,
        rtt,
        answers=options.answers,
        host_time=options.host_time,
        converged=generated / "vars.json",
        first_port=options.port,
    )
    with fleet:
        path = fleet.fleet_file({name: dict(values) for name, values in LAB_SETTINGS.items()})
        listed = [(host.name, host.port, host.user, host.key) for host in fleet.hosts]
        inventory = contenders.inventory(directory / "hosts.ini", listed, fleet.known_hosts)
        offered = [
            contenders.sparkfleet(path, {}),
            contenders.empty(path, {}),
            contenders.ansible(inventory, generated, forks=options.forks),
        ]
        who = [one for one in offered if one.name in options.only]
        who[0].run()  # the first one notes itself in the history of each host
        fleet.commands()
        for what in [task for task in SIMULATED if task in options.tasks]:
            sent: dict[str, float] = {}

            def after(contender: Contender, cost: Cost, what: str = what, sent: dict[str, float] = sent) -> None:
                sent[contender.name] = statistics.mean(Counter(one).total() for one in fleet.commands())
                if contender.changes(cost.output):
                    raise BenchError(f"{contender.name}, {what}: changes on a converged host:\n{cost.output[-3000:]}")

            yield from figures(what, rounds(who, options.rounds, dry=what == "dry run", after=after), hosts, rtt, sent)


def show(found: Sequence[Figure]) -> None:
    """The table of all figures, and the growth laws where there are several sizes of a fleet."""
    table = Table(
        "task", "hosts", "round trip", "who", "s", "x sparkfleet", "CPU s/host", "MiB", "MiB/host", "commands"
    )
    for one in found:
        table.add_row(
            one.what,
            str(one.hosts),
            f"{1000 * one.rtt:.0f} ms",
            one.who,
            f"{one.wall:.2f}",
            f"{one.ratio:.2f}",
            f"{one.cpu:.3f}",
            f"{one.memory:.0f}",
            f"{one.memory / one.hosts:.1f}",
            "" if one.commands is None else f"{one.commands:.1f}",
        )
    Console(width=130).print(table)
    for key in dict.fromkeys((one.what, one.who, one.rtt) for one in found):
        points = {one.hosts: one for one in found if (one.what, one.who, one.rtt) == key}
        if len(points) > 2:
            for name, unit, values in (
                ("controller CPU", "s", {n: one.cpu * n for n, one in points.items()}),
                ("wall", "s", {n: one.wall for n, one in points.items()}),
                ("memory", "MiB", {n: one.memory for n, one in points.items()}),
            ):
                law = growth(values)
                print(
                    f"{key[1]}, {key[0]}, {1000 * key[2]:.0f} ms: {name} = {law.fixed:.2f} + {law.per_host:.3f} x hosts"
                    f" {unit} (within {law.worst:.0%}; exponent {law.exponent:.2f} between the two largest)"
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, nargs="+", default=[], metavar="HOSTS")
    parser.add_argument("--rtt", type=float, nargs="+", default=[0.0], metavar="MS", help="added round trip")
    parser.add_argument("--lab", action="store_true", help="on real lab hosts")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2], help="how many lab hosts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forks", type=int, default=20, help="of Ansible")
    parser.add_argument("--only", nargs="+", default=["sparkfleet", "empty pyinfra", "ansible", "ansible with Mitogen"])
    parser.add_argument("--tasks", nargs="+", choices=SIMULATED, default=SIMULATED, help="on simulated hosts")
    parser.add_argument("--answers", type=Path, help="what tests/bench/ansible/record.py wrote; else they are made up")
    parser.add_argument("--host-time", default="0", metavar="S", help="seconds a command takes on a simulated host")
    parser.add_argument("--port", type=int, default=FIRST_PORT, help="the first one of the simulated hosts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all figures there")
    options = parser.parse_args()
    if "sparkfleet" not in options.only or not (options.simulated or options.lab):
        parser.error("--only must name sparkfleet, and one of --simulated and --lab is needed")
    found: list[Figure] = []
    for rtt in options.rtt if options.simulated else []:
        for hosts in options.simulated:
            with tempfile.TemporaryDirectory(prefix="sparkfleet-bench-") as directory:
                for figure in simulated(options, hosts, rtt / 1000, Path(directory)):
                    print(figure, flush=True)
                    found.append(figure)
    for hosts in options.hosts if options.lab else []:
        with tempfile.TemporaryDirectory(prefix="sparkfleet-bench-") as directory:
            for what, costs in fleet_lab.measure(hosts, options.rounds, options.only, options.forks, Path(directory)):
                for figure in figures(what, costs, hosts, 0.0):
                    print(figure, flush=True)
                    found.append(figure)
    show(found)
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in found], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, LabError) as error:
        sys.exit(f"bench: {error}")
