"""Records the evidence files on lab hosts: deploys, looks, breaks everything, looks again.

`python -m tests.compliance.record` takes minutes; it is run when controls, the probe or the breaks change. `--again`
starts from the deployed hosts that an earlier run has saved. `--pass ID…` records anew only what these controls see of
a host on which their measures hold: where a judge asks for more than it did.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparkfleet.audit.collect import Target, collect, target_of
from sparkfleet.audit.model import Control, HostRun
from sparkfleet.settings import HostSettings, load_fleet
from tests.compliance.breaks import CUT, FIRST, LAST, SECOND, Break
from tests.compliance.doubles import DOUBLES, GPU, SECOND_HOST, settings_of, why
from tests.compliance.fixtures import BY_ID, Case, load, path_of, save, used
from tests.compliance.standins import PREPARE, SYNCHRONISE
from tests.integration.building import Material, finished, with_tools
from tests.integration.building import settings as building
from tests.integration.deploying import all_but, deploy, fleet
from tests.lab import Host, Lab

SAVED = "audit-green"
HOSTILE = "\x1b[2J\x1b]0;owned\x07</script><script>alert(1)</script>\u202e\r\n\x00{{7*7}} ; rm -rf / \n"
SETTINGS: dict[str, dict[str, Any]] = {
    "spark1": {"ssh": {"confirm_within": "300s", "protect": {"cron.service": "16MiB"}}},
    "spark2": {"ssh": {"confirm_within": "300s"}, "cuda_env": {"ld_library_path": "ldconfig"}},
}


def green(lab: Lab, hosts: Sequence[Host], path: Path, material: Material | None = None) -> None:
    """Both hosts as a deploy leaves them, saved; with `material` the first builds vLLM from source."""
    for host in hosts:
        host.clean()
        host.sudo(PREPARE)
    if material:
        with_tools(hosts[0])
        material.bring(hosts[0])
    # Twice: a unit that is started between swapoff and daemon-reload brings swap units back.
    for _ in range(2):
        result = deploy(lab, path)
        if result.rc:
            sys.exit(f"record: the deploy failed:\n{result.output[-3000:]}")
        if material:
            print(finished(hosts[0]), flush=True)
    for host in hosts:
        for unit in SETTINGS[host.name]["ssh"].get("protect", {}):
            host.sudo(f"systemctl restart {unit}")  # a score is given when a service starts
        host.snapshot(SAVED)


def looked(targets: Sequence[Target]) -> dict[str, HostRun]:
    runs = {run.name: run for run in collect(targets, 300)}
    for run in runs.values():
        if run.evidence is None or run.problem:
            sys.exit(f"record: {run.name}: {run.problem}")
        print(f"record: looked at {run.name} in {run.seconds:.1f} s", flush=True)
    return runs


def broken(host: Host, breaks: Sequence[Break], values: Mapping[str, str]) -> None:
    """Makes the breaks, at the host's console: some of them could end a session."""
    for item in breaks:
        command = item.commands
        for name, value in values.items():
            command = command.replace(f"{{{name}}}", value)
        host.console_run(command, timeout=120)


def written(case: str, control: Control, runs: Mapping[str, HostRun], settings: Mapping[str, HostSettings]) -> bool:
    """Writes an evidence file; whether the judge says what it should."""
    one = next(iter(runs))
    measure = control.measure
    chosen = {measure: settings[one].model_dump(mode="json")[measure]} if measure else {}
    why = next((item.commands for item in (*FIRST, *SECOND, *LAST, *CUT) if control.id in item.controls), "")
    content = Case(
        control.id,
        case,
        {"boot_ids": {name: run.boot_id for name, run in runs.items()}, "break": why if case == "fail" else ""},
        chosen,
        {name: used(control, run, settings[name]) for name, run in runs.items()},
    )
    verdict = content.verdict()
    if verdict.status != case:
        print(f"record: {control.id} on {', '.join(runs)} is {verdict.status}, not {case}: {verdict.saw}", flush=True)
        return False
    save(case, content)
    return True


def passes(runs: Mapping[str, HostRun], settings: Mapping[str, HostSettings]) -> bool:
    """A passing file for every control that the lab can pass."""
    fine = True
    for control in BY_ID.values():
        if control.id in DOUBLES or control.id == "SPK-FLEET-03":
            continue
        name = "spark2" if control.id == "SPK-CUDA-11" else "spark1"
        fine &= written("pass", control, runs if control.fleet_judge else {name: runs[name]}, settings)
    same = dict.fromkeys(("spark1", "spark1-again"), runs["spark1"])
    return written("pass", BY_ID["SPK-FLEET-03"], same, dict.fromkeys(same, settings["spark1"])) and fine


def fails(
    breaks: Sequence[Break], name: str, runs: Mapping[str, HostRun], settings: Mapping[str, HostSettings]
) -> bool:
    fine = True
    for control in (BY_ID[ident] for item in breaks for ident in item.controls):
        fine &= written("fail", control, runs if control.fleet_judge else {name: runs[name]}, settings)
    return fine


def printed(ident: str, host: str, output: str) -> str:
    return SECOND_HOST.get(ident, output) if host == "spark2" else output


def doubles() -> None:
    """What no lab host can show."""
    for ident, observations in DOUBLES.items():
        control = BY_ID[ident]
        for index, case in enumerate(("pass", "fail")):
            hosts = {"spark1": index, "spark2": 0} if control.fleet_judge else {"spark1": index}
            seen = {
                host: {
                    "gpus": {"command": "lspci -d 10de::03xx", "output": GPU, "rc": 0, "error": ""},
                    **{
                        name: {"command": name, "output": printed(ident, host, outputs[which]), "rc": 0, "error": ""}
                        for name, outputs in observations.items()
                    },
                }
                for host, which in hosts.items()
            }
            save(case, Case(ident, case, {"double": why(ident)}, settings_of(ident), seen))


def spoiled(ids: Iterable[str] = BY_ID) -> None:
    """Blank and hostile answers, made of the passing files."""
    for ident in ids:
        good = load(path_of(ident, "pass"))
        for case, output in (("blank", ""), ("hostile", HOSTILE)):
            hosts = {
                host: {name: {**seen, "output": output, "rc": 0, "error": ""} for name, seen in observations.items()}
                for host, observations in good.hosts.items()
            }
            save(case, Case(ident, "error", {"derived": "pass"}, good.settings, hosts))


def again_pass(lab: Lab, host: Host, ids: Sequence[str]) -> int:
    """The passing files of some controls, of a host with their measures only, and what is derived of them."""
    measures = {BY_ID[ident].measure for ident in ids} - {None}
    with tempfile.TemporaryDirectory() as directory:
        path = fleet(lab, [host], Path(directory) / "fleet.yaml", all_but(*(name for name in measures if name)))
        host.clean()
        host.sudo(PREPARE)
        result = deploy(lab, path)
        if result.rc:
            sys.exit(f"record: the deploy failed:\n{result.output[-3000:]}")
        host.sudo(SYNCHRONISE)
        loaded = load_fleet(path)
        targets = [target_of(one, loaded.known_hosts) for one in loaded.hosts]
        settings = {target.name: target.settings for target in targets}
        runs = looked(targets)
        written_all = [written("pass", BY_ID[ident], runs, settings) for ident in ids]
    if not all(written_all):
        return 1
    spoiled(ids)
    return 0


def main() -> int:
    """Records everything. Returns 1 where a judge does not say what it should."""
    lab = Lab()
    first, second = (lab.host(name) for name in ("spark1", "spark2"))
    os.environ["SPARKFLEET_SUDO_PASSWORD_COMMAND"] = f"cat {lab.admin_password_file}"
    if sys.argv[1:2] == ["--pass"]:
        return again_pass(lab, first, sys.argv[2:])
    with tempfile.TemporaryDirectory() as directory:
        material = Material(Path(directory) / "material")
        given = {**SETTINGS, "spark1": {**SETTINGS["spark1"], "vllm_source": building(material.commit())}}
        path = fleet(lab, (first, second), Path(directory) / "fleet.yaml", settings=given)
        loaded = load_fleet(path)
        targets = [target_of(host, loaded.known_hosts) for host in loaded.hosts]
        settings = {target.name: target.settings for target in targets}
        if "--again" in sys.argv:  # on the hosts that an earlier run has saved
            for host in (first, second):
                host.restore(SAVED)
        else:
            green(lab, (first, second), path, material)
        for host in (first, second):
            host.sudo(SYNCHRONISE)
        fine = passes(looked(targets), settings)
        values = {
            "machine_id": first.run("cat /etc/machine-id").stdout.strip(),
            "host_key": first.run("cat /etc/ssh/ssh_host_ed25519_key.pub").stdout.strip(),
        }
        broken(first, FIRST, values)
        broken(second, SECOND, values)
        runs = looked(targets)
        fine &= fails(FIRST, "spark1", runs, settings)
        fine &= fails(SECOND, "spark2", runs, settings)
        first.restore(SAVED)
        broken(first, LAST, values)
        fine &= fails(LAST, "spark1", looked(targets[:1]), settings)
        first.restore(SAVED)
        before = first.boot_id()
        broken(first, CUT, values)
        first.wait_boot(before)
        fine &= fails(CUT, "spark1", looked(targets[:1]), settings)
        first.restore(SAVED)
        second.restore(SAVED)
    doubles()
    if fine:
        spoiled()
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
