"""`pyinfra @sparkfleet/my-lab.yaml deploy.py`: the fleet file as an inventory, in a folder of somebody else's."""

from __future__ import annotations

import tomllib
from pathlib import Path

import paramiko
import pytest
import yaml

from tests.doubles import sshd
from tests.unit.test_operations_anywhere import ROOT, Spark, pyinfra

DEPLOY = """\
from pyinfra.context import host

from sparkfleet.operations import swap

swap(**host.data.settings["swap"])
"""


@pytest.fixture
def entry(tmp_path: Path) -> str:
    """A path on which the package's entry points are as pyproject.toml has them, however old the environment is."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pyinfra.connectors"]
    info = tmp_path / "path" / "sparkfleet_entry-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sparkfleet-entry\nVersion: 1\n")
    lines = [f"{name} = {target}" for name, target in found.items()]
    (info / "entry_points.txt").write_text("\n".join(["[pyinfra.connectors]", *lines, ""]))
    return str(info.parent)


def fleet(folder: Path, **ports: int) -> None:
    path = sshd.fleet_of(folder, ports)
    raw = yaml.safe_load(path.read_text())
    raw["groups"] = {"lab": {"swap": {"margin": "3GiB"}}}
    for name in ports:
        raw["hosts"][name] |= {"user": "root", "groups": ["lab"] if name == "two" else []}
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    (folder / "deploy.py").write_text(DEPLOY)


def test_hosts_groups_and_settings_are_the_files(tmp_path: Path, entry: str) -> None:
    one, two = Spark(), Spark()
    with sshd.serving(one) as first, sshd.serving(two) as second:
        fleet(tmp_path, one=first, two=second)
        call = ("@sparkfleet/fleet.yaml", "deploy.py", "-y", "--limit", "lab")
        done = pyinfra(tmp_path, *call, PYTHONPATH=entry)
    assert done.returncode == 0, done.stdout
    assert not one.asked
    assert "apply" in two.actions
    resources = next(r for request in two.asked for m in request["measures"] for r in m["resources"] if "margin" in r)
    assert resources["margin"] == 3 * 2**30


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "which fleet file? set $FLEET, or write @sparkfleet/PATH"),
        ("/gone.yaml", "gone.yaml: there is no such file"),
        ("/fleet.yaml", "fleet.yaml:5: hosts.one.prot: unknown key, did you mean port?"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, entry: str, name: str, said: str) -> None:
    (tmp_path / "fleet.yaml").write_text("version: 1\nhosts:\n  one:\n    address: 127.0.0.1\n    prot: 22\n")
    (tmp_path / "deploy.py").write_text(DEPLOY)
    done = pyinfra(tmp_path, f"@sparkfleet{name}", "deploy.py", "-y", PYTHONPATH=entry)
    assert done.returncode == 1
    assert said in done.stdout
    assert "Traceback" not in done.stdout


def test_a_host_that_is_not_reached_costs_itself_alone(tmp_path: Path, entry: str) -> None:
    spark = Spark()
    with sshd.serving(spark) as port:
        fleet(tmp_path, one=1, two=port)
        done = pyinfra(tmp_path, "@sparkfleet/fleet.yaml", "deploy.py", "-y", PYTHONPATH=entry)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "apply" in spark.actions, done.stdout


def test_a_hosts_key_must_be_pinned(tmp_path: Path, entry: str) -> None:
    spark = Spark()
    with sshd.serving(spark, paramiko.ECDSAKey.generate()) as port:
        fleet(tmp_path, one=port)
        done = pyinfra(tmp_path, "@sparkfleet/fleet.yaml", "deploy.py", "-y", PYTHONPATH=entry)
    assert done.returncode == 1
    assert not spark.asked
