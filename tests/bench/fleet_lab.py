"""The comparison on real lab hosts: each contender brings fresh hosts to the wanted state, then all look at one state.

Both end states are judged by the same audit, and each contender must find nothing to do on the state that the others
left: otherwise they do not do the same work, and there are no figures.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparkfleet.settings import HostSettings
from sparkhost.base.resource import Need, from_json
from tasks.lib import wheels
from tests.bench import contenders
from tests.bench.ansible import generate
from tests.bench.contenders import Contender
from tests.bench.process_tree import Cost
from tests.bench.simulated import ROOT, BenchError
from tests.compliance.standins import PREPARE, SYNCHRONISE
from tests.integration.deploying import LAB_SETTINGS, SPARKFLEET, environment, fleet
from tests.lab import Host, Lab

FRESH = "bench-fresh"
DRIFTED = "/etc/systemd/system/swap.d/zz-sparkfleet.conf"
DIFFERENT = "SPK-FLEET-03"
"""The lab's hosts run different kernels on purpose: the one control that a deploy cannot make pass."""
PASSES = 4
"""Runs after the first one in which a contender may still change something: what a reboot or a login starts."""


def needed(settings: HostSettings, machines: set[str]) -> dict[str, Path]:
    """The wheels of uv and the stack for these machines, fetched: SHA-256 → file. Raises wheels.NoWheel."""
    kinds = ("uv_binary", "stack_release")
    listed = [r for part in generate.resources(settings).values() for r in part if r["kind"] in kinds]
    needs: list[Need] = [n for r in listed for n in from_json(r).may_need() if n.machine in machines]
    return {need.sha256: wheels.fetch(need) for need in needs}


def verdicts(env: dict[str, str]) -> dict[str, str]:
    """What the audit says of every control on every host: "spark1 SPK-SWAP-01" → status.

    Raises:
        BenchError: there is no report.
    """
    done = subprocess.run(
        [SPARKFLEET, "audit", "--no-store", "--json", "-"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report = json.loads(done.stdout)
        return {f"{one['host']} {one['control']}": one["status"] for one in report["verdicts"]}
    except (ValueError, KeyError) as error:
        raise BenchError(f"the audit gave no report: {error}; {done.stderr[-2000:]}") from error


def settle(contender: Contender, *, told: str) -> None:
    """Runs it until it changes nothing. Raises BenchError where that does not come."""
    cost = contender.run()
    for _ in range(PASSES):
        if not contender.changes(cost.output):
            return
        cost = contender.run()
    raise BenchError(f"{contender.name} changes something each time, {told}:\n{cost.output[-4000:]}")


def measure(
    count: int, number_of_rounds: int, only: Sequence[str], forks: int, directory: Path
) -> Iterator[tuple[str, dict[str, list[Cost]]]]:
    """Task → contender → what each round cost, on so many lab hosts; brings them up where they are not.

    Raises:
        BenchError: a run fails, or the contenders do not do the same: there are no figures then.
        LabError: the hosts cannot be had.
    """
    lab = Lab()
    hosts = [lab.host(f"spark{number + 1}") for number in range(count)]
    path = fleet(lab, hosts, directory / "fleet.yaml")
    env = environment(lab, path)
    for host in hosts:
        host.clean()
        host.sudo(PREPARE)
        host.snapshot(FRESH)
    settings = HostSettings.model_validate(LAB_SETTINGS)
    machines = {host.run("uname -m").stdout.strip() for host in hosts}
    generated = directory / "ansible"
    generate.write(settings, generated, needed(settings, machines))
    listed = [(host.name, host.port, "admin", lab.admin_key) for host in hosts]
    inventory = contenders.inventory(directory / "hosts.ini", listed, lab.known_hosts)
    become = ["--become", "--become-password-file", str(lab.admin_password_file)]
    offered = [
        contenders.sparkfleet(path, env),
        contenders.empty(path, env),
        contenders.ansible(inventory, generated, become, forks=forks),
        contenders.ansible(inventory, generated, become, forks=forks, mitogen=True),
    ]
    who = [one for one in offered if one.name in only]
    deploys = [one for one in who if one.dry is not None]
    first: dict[str, list[Cost]] = {}
    judged: dict[str, dict[str, str]] = {}
    for contender in deploys:
        for host in hosts:
            host.restore(FRESH)
            host.sudo(SYNCHRONISE)  # to set the clock, as a restore does, is to be without a time server again
        first[contender.name] = [contender.run()]
        settle(contender, told="on hosts that it has deployed")
        judged[contender.name] = verdicts(env)
    same_audit(judged)
    yield "first run", first
    for contender in deploys:  # the last state is that of the last one: the others must find nothing to do there
        settle(contender, told="on hosts that the others have deployed")
    for contender in deploys:
        if contender.changes(contender.run().output):
            raise BenchError(f"{contender.name} undoes what the others do: they do not do the same work")
    yield "rerun", in_turn(who, number_of_rounds)
    yield "dry run", in_turn(deploys, number_of_rounds, dry=True)
    yield "drift repaired", repaired(deploys, hosts, number_of_rounds)


def same_audit(judged: dict[str, dict[str, str]]) -> None:
    """Raises BenchError where an end state fails a control, or two end states are judged differently."""
    reference = judged["sparkfleet"]
    for name, found in judged.items():
        failed = [
            control
            for control, status in found.items()
            if status in ("fail", "error", "unreachable") and not control.endswith(DIFFERENT)
        ]
        differ = [control for control in reference if found.get(control) != reference[control]]
        if failed or differ:
            raise BenchError(f"void: the end state of {name}: failed {failed}; other than sparkfleet's {differ}")


def in_turn(who: Sequence[Contender], count: int, *, dry: bool = False) -> dict[str, list[Cost]]:
    """Runs that must change nothing."""
    costs: dict[str, list[Cost]] = {}
    for _ in range(count):
        for contender in who:
            cost = contender.run(dry=dry)
            if contender.changes(cost.output):
                raise BenchError(f"{contender.name} changes something on a converged host:\n{cost.output[-3000:]}")
            costs.setdefault(contender.name, []).append(cost)
    return costs


def repaired(who: Sequence[Contender], hosts: Sequence[Host], count: int) -> dict[str, list[Cost]]:
    """Each puts back a drop-in that somebody has edited, on every host."""
    costs: dict[str, list[Cost]] = {}
    for _ in range(count):
        for contender in who:
            before = [host.sudo(f"cat {DRIFTED}").stdout for host in hosts]
            for host in hosts:
                host.sudo(f"echo '# somebody was here' >> {DRIFTED}")
            costs.setdefault(contender.name, []).append(contender.run())
            if [host.sudo(f"cat {DRIFTED}").stdout for host in hosts] != before:
                raise BenchError(f"{contender.name} did not put {DRIFTED} back")
    return costs
