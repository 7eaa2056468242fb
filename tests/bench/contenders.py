"""Who is compared in `tests.bench.fleet`: how each brings hosts to the same state, or looks what it would do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.process_tree import Cost, measured
from tests.bench.simulated import ROOT, BenchError

VENV, PEERS = ROOT / ".venv" / "bin", ROOT / ".venv-bench" / "bin"
PLAYBOOK = ROOT / "tests" / "bench" / "ansible" / "site.yml"
CONFIG = PLAYBOOK.with_name("ansible.cfg")
TIMEOUT = 3600.0
CHANGED = re.compile(r"^\S+ +: ok=\d+ +changed=(\d+) .*failed=0", re.MULTILINE)


@dataclass(frozen=True)
class Contender:
    """One of them."""

    name: str
    words: Sequence[str]
    dry: Sequence[str] | None
    """Words for a dry run; None: it has none."""
    env: Mapping[str, str] = field(default_factory=dict)
    changes: Callable[[str], int | None] = lambda output: None
    """How many changes a run tells of, all hosts together; None: that cannot be told."""

    def run(self, *, dry: bool = False) -> Cost:
        """Raises BenchError where it fails."""
        words = self.dry if dry else self.words
        if words is None:
            raise BenchError(f"{self.name} has no dry run")
        # As on a controller: bytecode of modules is kept. Without it each start compiles all that it imports.
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        cost = measured(words, cwd=ROOT, env={**env, **self.env}, timeout=TIMEOUT)
        if cost.rc:
            raise BenchError(f"{self.name} ended with exit code {cost.rc}:\n{cost.output[-3000:]}")
        return cost


def sparkfleet(fleet_file: Path, env: Mapping[str, str]) -> Contender:
    """`pyinfra inventory.py deploy.py`, all measures."""
    words = [str(VENV / "pyinfra"), "inventory.py", "deploy.py"]
    # pyinfra's dry run shows no plan with -y: docs/upstream-pyinfra.md.
    return Contender("sparkfleet", [*words, "-y"], [*words, "--dry"], of_pyinfra(fleet_file, env), our_changes)


def empty(fleet_file: Path, env: Mapping[str, str]) -> Contender:
    """A deploy of pyinfra itself that runs one command on each host, with our connection settings: the floor."""
    words = [str(VENV / "pyinfra"), "-y", "inventory.py", "exec", "--", "true"]
    return Contender("empty pyinfra", words, None, of_pyinfra(fleet_file, env))


def of_pyinfra(fleet_file: Path, env: Mapping[str, str]) -> dict[str, str]:
    return {**env, "FLEET": str(fleet_file), "PYINFRA_PROGRESS": "off"}


def our_changes(output: str) -> int:
    """Lines such as `[spark1] swap: /etc/fstab: comment out …`."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    return len(re.findall(r"^\s*\[\S+\] \w+: (?!armed: |kept: )/?\S+: ", plain, re.MULTILINE))


def ansible(
    inventory: Path, generated: Path, more: Sequence[str] = (), *, forks: int = 20, mitogen: bool = False
) -> Contender:
    """`ansible-playbook` of site.yml, with pipelining, kept connections and forks; with Mitogen instead."""
    env = {"ANSIBLE_CONFIG": str(CONFIG), "ANSIBLE_NOCOLOR": "1"}
    if mitogen:
        found = sorted(PEERS.parent.glob("lib/python3*/site-packages/ansible_mitogen/plugins/strategy"))
        if not found:
            raise BenchError(f"no Mitogen in {PEERS.parent}: see tests/bench/requirements.txt")
        env |= {"ANSIBLE_STRATEGY_PLUGINS": str(found[0]), "ANSIBLE_STRATEGY": "mitogen_linear"}
    words = [
        *(str(PEERS / "ansible-playbook"), "-i", str(inventory), "--forks", str(forks), str(PLAYBOOK)),
        *("--extra-vars", f"@{generated / 'vars.json'}", "--extra-vars", f"generated={generated}", *more),
    ]
    name = "ansible with Mitogen" if mitogen else "ansible"
    return Contender(name, words, [*words, "--check", "--diff"], env, ansible_changes)


def ansible_changes(output: str) -> int:
    """The sum of `changed=` over all hosts, by the recap."""
    return sum(map(int, CHANGED.findall(output)))


def inventory(path: Path, hosts: Sequence[tuple[str, int, str, Path]], known_hosts: Path) -> Path:
    """An inventory of hosts on 127.0.0.1, each (name, port, user, key)."""
    lines = [
        f"{name} ansible_host=127.0.0.1 ansible_port={port} ansible_user={user} ansible_ssh_private_key_file={key}\n"
        for name, port, user, key in hosts
    ]
    options = f"ansible_ssh_common_args='-o UserKnownHostsFile={known_hosts} -o IdentitiesOnly=yes'\n"
    path.write_text("[all]\n" + "".join(lines) + "\n[all:vars]\n" + options)
    return path
