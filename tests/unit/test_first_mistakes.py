"""What goes wrong in one measure, one host, or an inventory of one's own: one line each, and the rest goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import paramiko
import yaml

from sparkfleet.deploy.outcome import Outcome, State, outcomes
from sparkfleet.host_sources import unpacked
from tests.doubles import sshd

ROOT = Path(__file__).resolve().parents[2]
TWO = "from tasks import swap, uv\nfrom tasks.lib.converge import deploy\n\ndeploy(swap)\ndeploy(uv)\n"
ONE = "from tasks import swap, uv\nfrom tasks.lib.converge import deploy\n\ndeploy(swap, uv)\n"
# A measure of a site's own whose resource cannot travel: its module is not one of sparkhost.
ODD = """\
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

from sparkhost.base.resource import Resource
from tasks import swap
from tasks.lib.converge import deploy


@dataclass(frozen=True)
class Odd(Resource):
    kind: ClassVar[str] = "test_odd"


Odd.__module__ = "no_such_module"
tools = ModuleType("site.tools")
tools.apply = tools.remove = lambda settings: [Odd()]
deploy(tools, swap)
"""


def obeys(line: str, text: str, channel: paramiko.Channel) -> None:
    """A host on which everything is to be changed, and is."""
    request = unpacked(text)
    names = [measure["name"] for measure in request["measures"]]
    changed = {**sshd.EMPTY, "changes": [sshd.CHANGE]}
    found: dict[str, object] = {"plan": dict.fromkeys(names, changed), "notes": [], "unproved": False}
    if request["action"] == "plan":
        found |= {"applied": None, "history": {"measures": {}, "last": None}}
    if request["action"] == "apply":
        found |= {"applied": changed, "plan": dict.fromkeys(names[1:], changed)}
    sshd.answer(channel, json.dumps(found) + "\n")


def run(folder: Path, deploy: str, inventory: str, hosts: list[str], **more: str) -> tuple[list[Outcome], str]:
    (folder / "deploy.py").write_text(deploy)
    (folder / "journal").touch()
    given = {"SPARKFLEET_JOURNAL": str(folder / "journal"), "PYINFRA_PROGRESS": "off", "HOME": str(folder), **more}
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", inventory, str(folder / "deploy.py"), "-y"],
        cwd=ROOT,
        env={**os.environ, **given},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout
    return outcomes(hosts, (folder / "journal").read_text().splitlines(), dry=False), done.stdout


def fleet(folder: Path, port: int, **more: Mapping[str, object]) -> dict[str, str]:
    """A fleet of `one`, and of further hosts that differ from it."""
    path = sshd.fleet_of(folder, {"one": port})
    document = yaml.safe_load(path.read_text())
    one = document["hosts"]["one"]
    for name, differs in more.items():
        document["hosts"][name] = {**one, "address": "localhost", **differs}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return {"FLEET": str(path)}


def test_every_call_of_deploy_counts(tmp_path: Path) -> None:
    with sshd.serving(obeys) as port:
        (one,), said = run(tmp_path, TWO, "inventory.py", ["one"], **fleet(tmp_path, port))
    assert one.state is State.CHANGED, said
    assert {name: len(measure.changes) for name, measure in one.measures.items() if name in ("swap", "uv")} == {
        "swap": 2,  # the second: what comes after systemd's reload
        "uv": 1,
    }


def test_a_mistake_of_ours_costs_one_measure(tmp_path: Path) -> None:
    with sshd.serving(obeys) as port:
        given = fleet(tmp_path, port)
        (one,), said = run(tmp_path, ODD, "inventory.py", ["one"], **given)
        _, verbose = run(tmp_path, ODD, "inventory.py", ["one"], **given, SPARKFLEET_VERBOSE="1")
    assert one.state is State.FAILED
    assert one.measures["tools"].problems[0].startswith("a mistake of ours: FileNotFoundError: ")
    assert "swap" in one.measures, said
    assert one.measures["swap"].changes
    assert not one.measures["swap"].problems
    assert "Traceback" not in said
    assert "Traceback" in verbose


def test_a_key_that_is_not_there_is_one_line_with_the_next_step(tmp_path: Path) -> None:
    with sshd.serving(obeys) as port:
        given = fleet(tmp_path, port, two={"ssh_key": ".lab/key"})
        found, said = run(tmp_path, ONE, "inventory.py", ["one", "two"], **given)
    assert [each.state for each in found] == [State.CHANGED, State.UNREACHABLE], said
    assert f"there is no key {tmp_path}/.lab/key (the lab's: `make demo` makes it)" in found[1].reason
    assert "Traceback" not in said


def test_a_typo_in_an_own_inventory_is_one_line_and_that_hosts_alone(tmp_path: Path) -> None:
    with sshd.serving(obeys) as port:
        sshd.fleet_of(tmp_path, {"one": port})
        ssh = {
            "ssh_hostname": "127.0.0.1",
            "ssh_port": port,
            "ssh_user": "admin",
            "ssh_key": str(tmp_path / "key"),
            "ssh_known_hosts_file": str(tmp_path / "known_hosts"),
        }
        hosts = [("one", {**ssh, "settings": {"swap": {"mod": "off"}}}), ("two", ssh)]
        (tmp_path / "hosts.py").write_text(f"hosts = {hosts!r}\n")
        found, said = run(tmp_path, ONE, str(tmp_path / "hosts.py"), ["one", "two"])
    assert [each.state for each in found] == [State.FAILED, State.CHANGED], said
    assert found[0].reason == "settings: settings.swap.mod: unknown key, did you mean mode?"
    assert "Traceback" not in said
    assert "pydantic" not in said
