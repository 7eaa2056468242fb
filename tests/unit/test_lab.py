"""The lab's pure parts: what a host is made of, where packages come from, what is asked of a person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import LabError, files, image, profiles, tools
from tests.lab.__main__ import parser
from tests.lab.ssh import render_config


def test_the_two_hosts_differ_where_it_matters() -> None:
    one, two = profiles.profile("spark1"), profiles.profile("spark2")
    assert (one.suite, one.swap_file, one.zram) == ("bookworm", True, True)
    assert (one.ssh_socket, one.sudo_password) == (False, False)
    assert (two.suite, two.swap_partition, two.ssh_socket, two.sudo_password) == ("trixie", True, True, True)
    assert profiles.profile("spark3") == one


@pytest.mark.parametrize("name", ["spark", "spark0", "web1", "spark1x", "../spark1", ""])
def test_other_names_are_one_line(name: str) -> None:
    with pytest.raises(LabError, match="expected spark1 to spark99"):
        profiles.profile(name)


def test_memory_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKFLEET_LAB_MEMORY", "3072")
    assert profiles.profile("spark1").memory_mib == 3072
    monkeypatch.setenv("SPARKFLEET_LAB_MEMORY", "3G")
    with pytest.raises(LabError, match="'3G': expected a number of MiB"):
        profiles.profile("spark1")


def test_an_image_is_known_by_what_goes_into_it() -> None:
    one = profiles.profile("spark1")
    assert image.image_hash(one) == image.image_hash(replace(one, memory_mib=4096))
    assert image.image_hash(one) != image.image_hash(replace(one, zram=False))
    assert image.image_hash(one) != image.image_hash(replace(one, suite="trixie"))


def test_fstab_is_as_odd_as_real_ones() -> None:
    text = files.fstab(profiles.profile("spark1"))
    for oddity in ("\t", "#", "UUID=", "LABEL=", "nofail", "\\040", "\n\n"):
        assert oddity in text
    assert "\tswap\t" in text
    other = files.fstab(profiles.profile("spark2"))
    assert not other.endswith("\n")
    assert not [line for line in other.splitlines() if "swap" in line and not line.lstrip().startswith("#")]


def test_the_mirror_is_that_of_the_whole_distribution() -> None:
    lines = [
        "Docker bookworm https://one.example/linux/debian/",
        "Debian bookworm-updates http://two.example/debian/",
        "Debian bookworm http://two.example/debian-security/",
        "Debian bookworm http://three.example/debian/",
    ]
    assert tools.pick_mirror(lines, ubuntu=False) == "http://three.example/debian/"
    assert tools.pick_mirror(lines, ubuntu=True) is None


def test_host_keys_are_checked_strictly() -> None:
    text = render_config({"spark1": 2201}, Path("/k"), Path("/a"), Path("/u"), "admin", ("alice",))
    assert "StrictHostKeyChecking yes" in text
    assert 'UserKnownHostsFile "/k"' in text


def test_arm64_needs_more_tools_than_this_machine_does() -> None:
    plain = {tool.package for tool in tools.needed("amd64", "amd64")}
    foreign = {tool.package for tool in tools.needed("arm64", "amd64")}
    assert {"qemu-system-arm", "qemu-user-static", "arch-test"} <= foreign - plain


def test_commands_are_read() -> None:
    arguments = parser().parse_args(["up", "--count", "3", "--arch", "arm64"])
    assert (arguments.count, arguments.arch) == (3, "arm64")
    assert parser().parse_args(["ssh", "spark1", "sudo", "-n", "true"]).cmd == ["sudo", "-n", "true"]
