"""Links between hosts as a fleet file asks for them: addresses, and what does not fit over the fleet."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkfleet.settings import FleetError, FleetHost, load_fleet
from sparkfleet.settings.link_addresses import Rail, rails_of

SIZES = [("direct", 2), *(("ring", n) for n in range(3, 9)), *(("switch", n) for n in range(2, 9))]


def fleet(folder: Path, link: dict[str, Any], count: int, **more: Any) -> Path:
    path = folder / "fleet.yaml"
    hosts = {f"spark{n}": {"address": f"192.168.7.{n}", "groups": ["linked"]} for n in range(1, count + 1)}
    groups = {"linked": {"cluster_link": {"state": "present", **link}}, **more.pop("groups", {})}
    path.write_text(yaml.safe_dump({"version": 1, "groups": groups, "hosts": hosts | more.pop("hosts", {}), **more}))
    return path


def links(hosts: tuple[FleetHost, ...]) -> dict[str, list[Rail]]:
    return {host.name: rails_of(host.settings.cluster_link, host.name) for host in hosts}


@pytest.mark.parametrize(("topology", "count"), SIZES)
def test_every_cable_has_two_rails_and_both_ends_know_each_other(tmp_path: Path, topology: str, count: int) -> None:
    """Red with one subnet for both rails, with an address twice, or with ends of different subnets."""
    found = links(load_fleet(fleet(tmp_path, {"topology": topology}, count)).hosts)
    every = [(name, rail) for name, rails in found.items() for rail in rails]
    assert len({rail.address.ip for _, rail in every}) == len(every)
    by_address = {str(rail.address.ip): (name, rail) for name, rail in every}
    for name, rail in every:
        assert rail.peers
        for peer, address in rail.peers:
            owner, other = by_address[address]
            assert (owner, other.subnet, other.rail, other.mtu) == (peer, rail.subnet, rail.rail, rail.mtu)
            assert (name, str(rail.address.ip)) in other.peers
            if topology == "ring":
                assert {rail.port, other.port} == {0, 1}
            else:
                assert rail.port == other.port == 1
    for rails in found.values():
        for one, two in itertools.combinations(rails, 2):
            assert not one.subnet.overlaps(two.subnet)
    expected = {"direct": 2, "switch": 2, "ring": 2 * count}[topology]
    assert len({rail.subnet for _, rail in every}) == expected


def test_a_host_that_comes_behind_the_others_changes_no_address(tmp_path: Path) -> None:
    small, large = (links(load_fleet(fleet(tmp_path, {"topology": "switch"}, n)).hosts) for n in (3, 4))
    for name, rails in small.items():
        assert [rail.address for rail in rails] == [rail.address for rail in large[name]]


@pytest.mark.parametrize(("link", "mtu"), [({}, 9000), ({"topology": "switch"}, None), ({"mtu": 1500}, 1500)])
def test_the_mtu_is_large_on_cables_and_left_alone_on_a_switch(
    tmp_path: Path, link: dict[str, Any], mtu: int | None
) -> None:
    found = links(load_fleet(fleet(tmp_path, link, 2)).hosts)
    assert {rail.mtu for rails in found.values() for rail in rails} == {mtu}


def test_a_fleet_without_links_knows_of_none(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("version: 1\nhosts: {spark1: {}, spark2: {}}\n")
    for host in load_fleet(path).hosts:
        link = host.settings.cluster_link
        assert (link.state, link.host, link.hosts) == ("unmanaged", None, [])


PAIR = {"cluster_link": {"state": "present", "topology": "direct"}}
TWO_MORE = {f"spark{n}": {"address": f"192.168.7.{n}", "groups": ["others"]} for n in (8, 9)}


@pytest.mark.parametrize(
    ("link", "count", "more", "said"),
    [
        ({"topology": "direct"}, 3, {}, "got 'direct' for 3 hosts, expected 2 of them"),
        ({"topology": "ring"}, 2, {}, "got 'ring' for 2 hosts, expected 3 to 8 of them"),
        ({"topology": "switch"}, 9, {}, "expected 2 to 8 of them"),
        ({"topology": "ring", "pool": "10.20.0.0/22"}, 3, {}, "which has no room for 6 networks /24"),
        ({"pool": "10.20.0.0/24"}, 2, {}, "with room for two /24 at least"),
        ({"pool": "8.8.0.0/16"}, 2, {}, "expected a private IPv4 network"),
        ({"pool": "192.168.0.0/16", "topology": "switch"}, 2, {"hosts": {"far": {"address": "192.168.1.9"}}},
         "192.168.1.0/24 holds 192.168.1.9, the address of far"),
        ({}, 2, {"groups": {"others": PAIR}, "hosts": TWO_MORE}, "overlaps 10.20.0.0/24 of group linked's"),
        ({"hosts": ["a", "b"]}, 2, {}, "is filled in from the groups of the fleet file: leave it out"),
        ({}, 2, {"hosts": {"lone": {"settings": PAIR}}}, "is for a group of hosts: put it under groups"),
        ({}, 2, {"defaults": PAIR, "hosts": {"lone": {}}}, "is for a group of hosts: put it under groups"),
        ({"devices": ["a"]}, 2, {}, "expected 2 different devices for topology direct"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_before_anything_changes(
    tmp_path: Path, link: dict[str, Any], count: int, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(FleetError) as caught:
        load_fleet(fleet(tmp_path, link, count, **more))
    assert said in str(caught.value)
    assert "fleet.yaml" in caught.value.lines[0]


def test_both_ends_must_have_the_same_mtu(tmp_path: Path) -> None:
    path = fleet(tmp_path, {}, 2)
    data = yaml.safe_load(path.read_text())
    data["hosts"]["spark2"]["settings"] = {"cluster_link": {"mtu": 1500}}
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(FleetError, match=r"hosts\.spark2\.settings\.cluster_link\.mtu: differs from that of spark1"):
        load_fleet(path)


def test_what_is_a_hosts_own_may_differ(tmp_path: Path) -> None:
    path = fleet(tmp_path, {}, 2)
    data = yaml.safe_load(path.read_text())
    data["hosts"]["spark2"]["settings"] = {"cluster_link": {"devices": ["cx0", "cx1"], "take_over": True}}
    path.write_text(yaml.safe_dump(data))
    assert load_fleet(path).hosts[1].settings.cluster_link.devices == ["cx0", "cx1"]
