"""`sparkfleet link show`: the picture is that of the hosts' own words, not of the plan."""

from __future__ import annotations

from sparkfleet.audit.controls import cluster_link
from sparkfleet.audit.model import Evidence, Observation, Status
from sparkfleet.link.picture import rows, table
from sparkfleet.settings import HostSettings

HOSTS = ("spark1", "spark2", "spark3")
SETTINGS = {
    name: HostSettings.model_validate(
        {"cluster_link": {"state": "present", "topology": "switch", "host": name, "hosts": [*HOSTS]}}
    )
    for name in HOSTS
}


def mac(host: int, rail: int) -> str:
    return f"4c:bb:47:00:0{host}:0{rail}"


def evidence(host: int, *, swapped: bool = False, speed: int = 200000, carrier: int = 1) -> Evidence:
    """What the probe says of a host whose peers answer; `swapped`: the two others by each other's MAC."""
    lines, heard = ["2 addresses"], []
    for rail in (0, 1):
        lines.append(
            f"10.20.{rail}.{10 + host}/24 cx{rail} mtu=1500 speed={speed} carrier={carrier} "
            f"rdma=roce{rail}:ACTIVE mac={mac(host, rail)}"
        )
        peers = [peer for peer in (1, 2, 3) if peer != host]
        macs = peers[::-1] if swapped else peers
        heard += [f"cx{rail} 10.20.{rail}.{10 + p} {mac(m, rail)}" for p, m in zip(peers, macs, strict=True)]
    return Evidence(
        {
            "links": Observation("ip", "\n".join(lines) + "\n"),
            "link_neighbours": Observation("ip", "\n".join([f"{len(heard)} neighbours", *heard]) + "\n"),
        }
    )


def test_a_whole_fabric_has_no_problem_and_every_end_by_name() -> None:
    found = rows(SETTINGS, {name: evidence(number) for number, name in enumerate(HOSTS, 1)})
    assert [each.problems for each in found] == [()] * 6
    assert found[0].cells == (
        *("spark1", "1", "0", "cx0", "10.20.0.11/24", "200000", "1500", "roce0:ACTIVE"),
        "spark2 cx0, spark3 cx0",
    )
    assert len(table(found)) == 7


def test_who_answers_for_somebody_else_is_named() -> None:
    """Red where the picture is drawn from the plan."""
    seen = {name: evidence(number, swapped=name == "spark1") for number, name in enumerate(HOSTS, 1)}
    problems = [problem for each in rows(SETTINGS, seen) for problem in each.problems]
    assert problems[:2] == [
        "spark3 answers for spark2: a cable or an address is wrong",
        "spark2 answers for spark3: a cable or an address is wrong",
    ]


def test_what_is_slow_or_out_is_said_below_the_table() -> None:
    seen = {name: evidence(number, speed=100000, carrier=0) for number, name in enumerate(HOSTS, 1)}
    lines = table(rows(SETTINGS, seen))
    assert "spark2 cx1: no carrier: is the cable in?" in lines
    assert "spark2 cx1: 100000 Mbit/s, not 200000" in lines


def test_a_host_that_was_not_reached_is_not_taken_for_a_good_one() -> None:
    found = rows(SETTINGS, {"spark1": evidence(1), "spark2": None, "spark3": Evidence({})})
    by_host = {each.cells[0]: each.problems for each in found}
    assert by_host["spark2"] == ("no device has 10.20.1.12/24",)
    assert by_host["spark3"] == ("no device has 10.20.1.13/24",)
    assert f"{mac(2, 1)} answers for spark2, and is no host of the fleet that was seen" in by_host["spark1"]


def test_a_fleet_without_links_has_nothing_to_compare() -> None:
    """Seen red on hosts without the measure: what a host is not asked for was missing evidence."""
    none = Evidence({"links": Observation("ip -j -4 address show", "0 addresses\n")})
    judged = cluster_link.unique()({"spark1": none, "spark2": none})
    assert judged.status is Status.NOT_APPLICABLE
