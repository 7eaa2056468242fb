"""The measure cluster_link on a host of files: which devices, whose files, what the kernel has.

`/sys` and `/etc` are folders here, with the names that a ConnectX-7 shows on a Spark: a double of the hardware at its
interface, and said to be one. Hosts with real devices: tests/acceptance/test_cluster_link.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkfleet.settings import ClusterLinkSettings
from sparkhost.base.resource import Refused
from sparkhost.cluster_link import answers, environment, hardware, live, network_files
from sparkhost.cluster_link.hardware import Nic
from sparkhost.ssh import unproved
from tasks import cluster_link

SPARK = [
    ("rocep1s0f0", "0000:01:00.0", "enp1s0f0np0"),
    ("rocep1s0f1", "0000:01:00.1", "enp1s0f1np1"),
    ("roceP2p1s0f0", "0002:01:00.0", "enP2p1s0f0np0"),
    ("roceP2p1s0f1", "0002:01:00.1", "enP2p1s0f1np1"),
]
ENDS = [Nic("enp1s0f1np1", "02:00:00:00:00:01"), Nic("enP2p1s0f1np1", "02:00:00:00:00:02")]


def connectx(root: Path, devices: list[tuple[str, str, str]]) -> None:
    """A double of what mlx5 shows below /sys."""
    for rdma, pci, net in devices:
        function = root / "devices" / pci
        (function / "net" / net).mkdir(parents=True)
        (function / "net" / net / "address").write_text("02:00:00:00:00:0A\n")
        (root / "class/infiniband" / rdma).mkdir(parents=True)
        (root / "class/infiniband" / rdma / "device").symlink_to(function)
        (root / "class/net").mkdir(parents=True, exist_ok=True)
        (root / "class/net" / net).symlink_to(function / "net" / net)


@pytest.fixture
def sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hardware, "SYS", tmp_path / "sys")
    return tmp_path / "sys"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(network_files, "ROOT", tmp_path)
    return tmp_path


def test_ports_are_pci_functions_and_rails_pci_domains(sys: Path) -> None:
    connectx(sys, SPARK)
    found = hardware.nics([(1, 0), (1, 1)])
    assert {which: (nic.name, nic.mac, nic.rdma) for which, nic in found.items()} == {
        (1, 0): ("enp1s0f1np1", "02:00:00:00:00:0a", "rocep1s0f1"),
        (1, 1): ("enP2p1s0f1np1", "02:00:00:00:00:0a", "roceP2p1s0f1"),
    }
    assert [nic.name for nic in hardware.nics([(0, 0), (0, 1)]).values()] == ["enp1s0f0np0", "enP2p1s0f0np0"]


def test_names_do_not_count(sys: Path) -> None:
    """`mlx5_0` and `eth7` are reported as well: red where a name is looked at."""
    connectx(sys, [("mlx5_1", "0002:01:00.1", "eth2"), ("mlx5_0", "0000:01:00.1", "eth7")])
    assert [nic.name for nic in hardware.nics([(1, 0), (1, 1)]).values()] == ["eth7", "eth2"]


@pytest.mark.parametrize("devices", [[], SPARK[:2], [*SPARK, ("mlx5_9", "0004:01:00.1", "eth9")]])
def test_other_hardware_is_refused_by_what_is_there(sys: Path, devices: list[tuple[str, str, str]]) -> None:
    connectx(sys, devices)
    with pytest.raises(Refused, match=r"port 1 has \d network devices with RDMA .*cluster_link\.devices"):
        hardware.nics([(1, 0), (1, 1)])


def test_a_person_may_say_which_devices(sys: Path) -> None:
    connectx(sys, SPARK)
    named = hardware.nics([(1, 0), (1, 1)], ["enp1s0f0np0", "enP2p1s0f0np0"])
    assert [nic.name for nic in named.values()] == ["enp1s0f0np0", "enP2p1s0f0np0"]
    with pytest.raises(Refused, match="there is no network device eth0"):
        hardware.nics([(1, 0), (1, 1)], ["enp1s0f0np0", "eth0"])


NETWORK = "etc/systemd/network"


@pytest.mark.parametrize(
    ("path", "text", "others"),
    [
        (f"{NETWORK}/20-cx7.network", "[Match]\nName=enp1s0f1np1\n[Network]\nAddress=10.0.0.1/24\n", ""),
        (f"{NETWORK}/20-cx7.network", "[Match]\nPermanentMACAddress=02:00:00:00:00:02\n", ""),
        (f"{NETWORK}/20-all.network", "[Match]\nName=enp1s0f1np1 enP7s7\n", "enP7s7"),
        (f"{NETWORK}/01-all.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n", "en*"),
        ("etc/NetworkManager/system-connections/cx7.nmconnection",
         "[connection]\nid=cx7\ninterface-name=enP2p1s0f1np1\n[ipv4]\nmethod=auto\n", ""),
        ("etc/NetworkManager/system-connections/by mac", "[ethernet]\nmac-address=02:00:00:00:00:01\n", ""),
    ],
)  # fmt: skip
def test_a_file_of_somebody_else_is_named(root: Path, path: str, text: str, others: str) -> None:
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text(text)
    (found,) = network_files.foreign("networkd", ENDS)
    assert (found.path, found.others) == (root / path, others)
    assert str(root / path) in str(found.refusal())
    assert ("take_over" in str(found.refusal())) == (not others)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("10-lan.network", "[Match]\nName=enP7s7\n"),
        ("80-all.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n"),
        ("20-broken.network", "not a file of systemd's\n"),
        ("05-sparkfleet-cluster-link-enp1s0f1np1.network", "[Match]\nName=enp1s0f1np1\n"),
    ],
)
def test_files_of_other_devices_and_those_behind_ours_do_not_count(root: Path, name: str, text: str) -> None:
    (root / NETWORK).mkdir(parents=True)
    (root / NETWORK / name).write_text(text)
    assert network_files.foreign("networkd", ENDS) == []


def settings(**more: object) -> ClusterLinkSettings:
    given = {"state": "present", "topology": "direct", "host": "spark2", "hosts": ["spark1", "spark2"]}
    return ClusterLinkSettings.model_validate(given | more)


def test_the_files_have_two_rails_in_two_subnets_and_no_way_out() -> None:
    guarded, *_ = cluster_link.apply(settings())
    text = getattr(guarded, "netplan")  # noqa: B009 - a Resource to the type checker
    for word in ('"10.20.0.12/24"', '"10.20.1.12/24"', "optional: true", "mtu: 9000", '"@1.0@"', '"@1.1@"'):
        assert word in text
    for word in ("gateway", "routes:", "nameservers", "dhcp4: true"):
        assert word not in text.replace("# No gateway, no routes", "")


def test_an_operation_without_its_hosts_asks_for_no_rail() -> None:
    guarded, *_ = cluster_link.apply(ClusterLinkSettings(state="present"))
    assert getattr(guarded, "rails") == []  # noqa: B009 - as above


def test_the_way_back_stands_in_the_record_and_comes_back_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unproved, "DIRECTORY", tmp_path)
    before = {"cx0": live.State(["192.168.100.10/24"], 1500, True), "cx1": live.State([], 1500, False)}
    line = live.way_back(live.into_force("netplan", ["cx0", "cx1"], by_networkd=True), before)
    unproved.write(unproved.Armed("a.link", "changing", 1.0, ["ssh.service"], after=line))
    armed = unproved.read()
    assert armed is not None
    assert (armed.after, armed.token, armed.damage) == (line, "a.link", "")
    for part in ("netplan generate", "networkctl reconfigure cx0 cx1", "replace 192.168.100.10/24 dev cx0", "cx1 down"):
        assert part in line


def test_an_echo_request_has_the_checksum_that_its_receiver_computes() -> None:
    packet = answers.request(77, bytes(range(101)))
    assert answers.checksum(packet) == 0
    assert answers.is_ours(b"\0\0" + packet[2:], 77)
    assert not answers.is_ours(b"\0\0" + packet[2:], 78)


PORT = "class/infiniband/{}/ports/1"
GIDS = {
    0: ("fe80:0000:0000:0000:0000:00ff:fe00:0001", "IB/RoCE v1"),
    1: ("fe80:0000:0000:0000:0000:00ff:fe00:0001", "RoCE v2"),
    4: ("0000:0000:0000:0000:0000:ffff:0a14:000b", "IB/RoCE v1"),
    5: ("0000:0000:0000:0000:0000:ffff:0a14:000b", "RoCE v2"),
}


def gid_table(sys: Path, rdma: str, gids: dict[int, tuple[str, str]]) -> None:
    """A double of a RoCE device's table."""
    port = sys / PORT.format(rdma)
    for folder in ("gids", "gid_attrs/types"):
        (port / folder).mkdir(parents=True)
    for index, (gid, kind) in gids.items():
        (port / "gids" / str(index)).write_text(f"{gid}\n")
        (port / "gid_attrs/types" / str(index)).write_text(f"{kind}\n")


RAILS = [Nic("enp1s0f1np1", "", "rocep1s0f1"), Nic("enP2p1s0f1np1", "", "roceP2p1s0f1")]
ADDRESSES = ["10.20.0.11", "10.20.1.11"]


def test_the_gid_index_is_that_of_roce_v2_with_the_rails_address(sys: Path) -> None:
    """3 is usual, 5 was seen: red where a number is taken from a manual, or the version is not looked at."""
    gid_table(sys, "rocep1s0f1", GIDS)
    assert environment.gid_index("rocep1s0f1", "10.20.0.11") == 5
    assert environment.gid_index("rocep1s0f1", "10.20.0.12") is None


def test_nccl_is_told_both_rails_and_an_index_only_where_one_fits_all(sys: Path) -> None:
    other = {index: (gid.replace("0a14:000b", "0a14:010b"), kind) for index, (gid, kind) in GIDS.items()}
    gid_table(sys, "rocep1s0f1", GIDS)
    gid_table(sys, "roceP2p1s0f1", other)
    assert environment.nccl_values(RAILS, ADDRESSES, "enP7s7", 0) == {
        "NCCL_SOCKET_IFNAME": "=enP7s7",
        "NCCL_IB_HCA": "=rocep1s0f1,roceP2p1s0f1",
        "NCCL_IB_GID_INDEX": "5",
    }
    (sys / PORT.format("roceP2p1s0f1") / "gid_attrs/types/5").write_text("IB/RoCE v1\n")
    assert "NCCL_IB_GID_INDEX" not in environment.nccl_values(RAILS, ADDRESSES, "enP7s7", 0)


@pytest.mark.parametrize(("hosts", "along"), [(3, False), (4, True), (8, True)])
def test_in_a_ring_nccl_chooses_by_subnet(sys: Path, hosts: int, along: bool) -> None:
    values = environment.nccl_values(RAILS, ADDRESSES, "enP7s7", hosts)
    assert values["NCCL_IB_SUBNET_AWARE_ROUTING"] == "1"
    assert values["NCCL_IB_MERGE_NICS"] == "0"
    assert (values.get("NCCL_ALGO") == "Ring") is along
    assert "NCCL_IB_GID_INDEX" not in values


def test_bootstrap_never_goes_over_a_cable_that_may_be_out() -> None:
    values = environment.fabric_values(RAILS, ADDRESSES, "enP7s7")
    for name in ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "OMPI_MCA_btl_tcp_if_include"):
        assert values[name] == "enP7s7"
    assert values["UCX_NET_DEVICES"] == "rocep1s0f1:1,roceP2p1s0f1:1,enP7s7"
