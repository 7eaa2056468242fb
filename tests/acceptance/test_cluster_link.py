"""The measure cluster_link between two hosts with two wires: refusals, proof, take-back, drift, removal.

The hosts' network devices are virtio's, named like a Spark's, and the fleet file says which they are: no host here has
a ConnectX-7 (what it shows is read in tests/unit/test_cluster_link.py). Wires, kernel, systemd-networkd and packets are
real. The tests build on each other, in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.deploying import Deployed, all_but, deploy, fleet, wait_for
from tests.integration.lockout import ARMED, deploy_until
from tests.lab import Host, Lab

DEVICES = ("enp1s0f1np1", "enP2p1s0f1np1")
FOREIGN = "/etc/systemd/network/20-cx7.network"
FOREIGN_TEXT = "[Match]\nName=enp1s0f1np1\n\n[Network]\nAddress=192.168.100.10/24\n"
OURS = "/etc/systemd/network/05-sparkfleet-cluster-link-enp1s0f1np1.network"
FILES = "cd /etc/systemd/network && stat -c '%n %a %U %G %s' * .[!.]* 2>/dev/null; sha256sum *"


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[tuple[Host, Host]]:
    """Two hosts with a wire for each rail."""
    hosts = lab.host("spark1"), lab.host("spark2")
    for number, host in enumerate(hosts, 1):
        host.clean()
        prepare(host, number)
        for rail, device in enumerate(DEVICES):
            ends = [lab.sockets / f"w{rail}.{end}" for end in (number, 3 - number)]
            host.plug(f"rail{rail}", mac(number, rail), *ends)
            wait_for(host, f"test -e /sys/class/net/{device}", timeout=60)
            host.sudo(f"ip link set {device} up")
    yield hosts
    for host in hosts:
        host.stop()


def mac(number: int, rail: int) -> str:
    return f"52:54:00:00:0{number}:0{rail}"


def prepare(host: Host, number: int) -> None:
    """Names for the devices to come, and the lab's own network for the host's own device alone."""
    own = host.sudo("ip -o -4 address show | awk '/10.0.2.15/ {print $2}'").stdout.strip()
    host.sudo(f"sed -i 's/^Name=.*/Name={own}/' /etc/systemd/network/10-lab.network && networkctl reload")
    for rail, device in enumerate(DEVICES):
        text = f"[Match]\\nMACAddress={mac(number, rail)}\\n[Link]\\nName={device}\\n"
        host.sudo(f"printf '{text}' > /etc/systemd/network/10-rail{rail}.link && udevadm control --reload")


def linked(lab: Lab, pair: tuple[Host, Host], folder: Path, **link: Any) -> Path:
    """A fleet file with both hosts in one group, and nothing managed but their links."""
    path = fleet(lab, pair, folder / "fleet.yaml", all_but())
    data = yaml.safe_load(path.read_text())
    del data["defaults"]["cluster_link"]
    given = {"state": "present", "topology": "direct", "devices": [*DEVICES], "confirm_within": "90s", **link}
    data["groups"] = {"linked": {"cluster_link": given}}
    for host in data["hosts"].values():
        host["groups"] = ["linked"]
    path.write_text(yaml.safe_dump(data))
    return path


def files(host: Host) -> str:
    return host.sudo(FILES, check=False).stdout


def addresses(host: Host) -> list[str]:
    shown = host.sudo("ip -o -4 address show scope global").stdout.splitlines()
    return sorted(f"{line.split()[1]} {line.split()[3]}" for line in shown if line.split()[1] in DEVICES)


def of(number: int) -> list[str]:
    return sorted(f"{device} 10.20.{rail}.{10 + number}/24" for rail, device in enumerate(DEVICES))


def said(done: Deployed) -> str:
    return " ".join(done.output.split())


def test_a_file_of_somebody_else_is_named_and_nothing_changes(
    lab: Lab, pair: tuple[Host, Host], tmp_path: Path
) -> None:
    first = pair[0]
    first.sudo(f"printf '{FOREIGN_TEXT}' > {FOREIGN} && networkctl reload && networkctl reconfigure {DEVICES[0]}")
    wait_for(first, f"ip -4 address show dev {DEVICES[0]} | grep -q 192.168.100.10")
    before = files(first)
    done = deploy(lab, linked(lab, pair, tmp_path), "--limit", "spark1")
    assert done.rc != 0
    assert f"{FOREIGN} configures {DEVICES[0]} already: remove it, or set cluster_link.take_over" in said(done)
    assert files(first) == before


def test_a_peer_that_does_not_answer_has_the_change_taken_back(
    lab: Lab, pair: tuple[Host, Host], tmp_path: Path
) -> None:
    before = files(pair[1])
    done = deploy(lab, linked(lab, pair, tmp_path), "--limit", "spark2")
    assert done.rc != 0
    assert "not every peer answers: spark1 (10.20.0.11) on enp1s0f1np1 does not answer packets of 9000 bytes" in said(
        done
    )
    assert "taken back" in said(done)
    assert (files(pair[1]), addresses(pair[1])) == (before, [])
    assert pair[1].run(f"cat /sys/class/net/{DEVICES[0]}/mtu").stdout.strip() == "1500"


def test_an_address_in_use_is_found(lab: Lab, pair: tuple[Host, Host], tmp_path: Path) -> None:
    pair[0].sudo(f"ip address add 10.20.0.12/24 dev {DEVICES[0]}")
    try:
        done = deploy(lab, linked(lab, pair, tmp_path), "--limit", "spark2")
    finally:
        pair[0].sudo(f"ip address del 10.20.0.12/24 dev {DEVICES[0]}")
    assert f"10.20.0.12 on {DEVICES[0]} is in use by another machine, {mac(1, 0)}" in said(done)
    assert addresses(pair[1]) == []


def test_with_the_controller_dead_the_host_takes_it_back_by_itself(
    lab: Lab, pair: tuple[Host, Host], tmp_path: Path
) -> None:
    before = files(pair[1])
    process = deploy_until(lab, linked(lab, pair, tmp_path, confirm_within="40s"), "armed: every peer")
    process.kill()
    assert addresses(pair[1]) == of(2)
    wait_for(pair[1], f"! sudo -n test -e {ARMED} 2>/dev/null && ! ip -4 address | grep -q 10.20.0.12", timeout=150)
    pair[1].console_run("timeout 60 sh -c 'while test -e /var/lib/sparkfleet/rollback/program; do sleep 1; done'")
    assert (files(pair[1]), addresses(pair[1])) == (before, [])


def test_both_ends_are_linked_and_a_second_run_changes_nothing(
    lab: Lab, pair: tuple[Host, Host], tmp_path: Path
) -> None:
    path = linked(lab, pair, tmp_path, take_over=True)
    done = deploy(lab, path)
    assert done.rc == 0, done.output
    for number, host in enumerate(pair, 1):
        assert addresses(host) == of(number)
        peer = f"10.20.1.{10 + 3 - number}"
        host.sudo(f"ping -c 1 -M do -s 8972 -I {DEVICES[1]} {peer}")  # setuid or not, as the release has it
    assert FOREIGN not in files(pair[0])
    again = deploy(lab, path)
    assert again.rc == 0
    assert again.changes("spark1") == again.changes("spark2") == {}


def test_drift_is_named_and_repaired(lab: Lab, pair: tuple[Host, Host], tmp_path: Path) -> None:
    path = linked(lab, pair, tmp_path, take_over=True)
    pair[0].sudo(f"ip link set {DEVICES[1]} mtu 1500")
    dry = deploy(lab, path, "--dry")
    assert dry.changes("spark1") == {"cluster_link": [f"{DEVICES[1]}: MTU 9000 (has 1500)"]}
    assert deploy(lab, path).rc == 0
    assert pair[0].run(f"cat /sys/class/net/{DEVICES[1]}/mtu").stdout.strip() == "9000"


def test_a_cable_that_is_out_is_told_and_nothing_is_changed_then(
    lab: Lab, pair: tuple[Host, Host], tmp_path: Path
) -> None:
    for host in pair:
        host.pull("rail1", True)
    try:
        wait_for(pair[0], f'test "$(cat /sys/class/net/{DEVICES[1]}/carrier)" = 0')
        still = deploy(lab, linked(lab, pair, tmp_path, take_over=True))
        assert f"{DEVICES[1]}: no carrier" in said(still)
        before = files(pair[0])
        changed = deploy(lab, linked(lab, pair, tmp_path, take_over=True, mtu=8000), "--limit", "spark1")
        assert changed.rc != 0
        assert "no carrier" in said(changed)
        assert files(pair[0]) == before
    finally:
        for host in pair:
            host.pull("rail1", False)


def test_a_reboot_keeps_the_links(lab: Lab, pair: tuple[Host, Host], tmp_path: Path) -> None:
    pair[1].reboot()
    wait_for(pair[1], "ip -4 address | grep -q 10.20.1.12", timeout=60)
    assert addresses(pair[1]) == of(2)
    pair[1].sudo(f"ping -c 1 -M do -s 8972 -I {DEVICES[0]} 10.20.0.11")


def test_removal_puts_back_what_was_there(lab: Lab, pair: tuple[Host, Host], tmp_path: Path) -> None:
    done = deploy(lab, linked(lab, pair, tmp_path, state="absent"))
    assert done.rc == 0, done.output
    assert pair[0].sudo(f"cat {FOREIGN}").stdout == FOREIGN_TEXT
    wait_for(pair[0], f"ip -4 address show dev {DEVICES[0]} | grep -q 192.168.100.10")
    assert addresses(pair[0]) == [f"{DEVICES[0]} 192.168.100.10/24"]
    assert addresses(pair[1]) == []
    for host in pair:
        assert "sparkfleet" not in files(host)
