"""Swap, broken in the ways people break it, on two hosts that have it from five sources.

One cycle for many breaks: each deploy and each reboot of an emulated host takes its time. The order of the tests is the
order of the story; each begins where the one before left the hosts. That it all holds after a reboot
is shown for every measure at once, in `test_deploy.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.deploying import Deployed, all_but, deploy, fleet, wait_for
from tests.lab import Host, Lab

DROP_IN = "/etc/systemd/system/swap.d/zz-sparkfleet.conf"


def swaps(host: Host) -> list[str]:
    """The devices in the kernel's /proc/swaps."""
    return [line.split()[0] for line in host.run("cat /proc/swaps").stdout.splitlines()[1:]]


@pytest.fixture(scope="module")
def hosts(spark1: Host, spark2: Host) -> tuple[Host, Host]:
    return spark1, spark2


@pytest.fixture(scope="module")
def fleet_file(lab: Lab, hosts: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    others = all_but("swap")
    return fleet(lab, hosts, tmp_path_factory.mktemp("fleet") / "fleet.yaml", defaults=others)


@pytest.fixture(scope="module")
def fstab_before(hosts: tuple[Host, Host]) -> dict[str, str]:
    return {host.name: host.run("cat /etc/fstab").stdout for host in hosts}


@pytest.fixture(scope="module")
def first(lab: Lab, hosts: tuple[Host, Host], fleet_file: Path, fstab_before: dict[str, str]) -> Deployed:
    for host in hosts:
        assert swaps(host), f"{host.name} has no swap to turn off"
    return deploy(lab, fleet_file)


def test_the_first_deploy_turns_every_source_off(first: Deployed, hosts: tuple[Host, Host]) -> None:
    assert first.rc == 0, first.output
    for host in hosts:
        assert swaps(host) == []
        assert f"{DROP_IN}: create" in first.changes(host.name)["swap"]


def test_fstab_keeps_every_other_byte(first: Deployed, hosts: tuple[Host, Host], fstab_before: dict[str, str]) -> None:
    for host in hosts:
        after = host.run("cat /etc/fstab").stdout
        assert after.replace("# swapped off by sparkfleet: ", "") == fstab_before[host.name]
        assert host.run("stat -c '%a %U:%G' /etc/fstab").stdout.strip() == "644 root:root"
    backup = hosts[0].sudo("cat /var/lib/sparkfleet/backup/etc/fstab").stdout
    assert backup == fstab_before[hosts[0].name]


def test_a_second_deploy_changes_nothing_and_says_so(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    second = deploy(lab, fleet_file)
    assert second.rc == 0, second.output
    for host in hosts:
        assert second.changes(host.name) == {}
    assert "] Success" not in second.output


def break_swap(first: Host, second: Host) -> None:
    """Nine kinds of drift: edited, added, deleted, masked, mode, runtime only (three sources), a new unit."""
    first.sudo("sed -i 's/^# swapped off by sparkfleet: //' /etc/fstab")  # edited back, and back in use:
    first.sudo(f"rm {DROP_IN} && systemctl daemon-reload && systemctl start swap.target")
    first.sudo("printf '/new.img\\tnone\\tswap\\tsw\\t0\\t0\\n' | tee -a /etc/fstab")
    second.sudo(f"ln -sf /dev/null {DROP_IN}")
    # As a package or a colleague does: a new unit, enabled and started.
    second.sudo(
        "fallocate -l 32M /extra.img && chmod 600 /extra.img && mkswap /extra.img && swapon /extra.img"
        " && printf '[Swap]\\nWhat=/extra.img\\n[Install]\\nWantedBy=swap.target\\n'"
        " > /etc/systemd/system/extra.img.swap && systemctl enable extra.img.swap"
    )
    second.sudo("swapon \"$(blkid -t TYPE=swap -o device | grep '^/dev/vd')\"")  # runtime only: the GPT partition


def test_drift_is_named_by_a_dry_run_and_repaired_by_the_next_deploy(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    break_swap(*hosts)
    for host in hosts:
        assert swaps(host), "the break did not work"
    planned = deploy(lab, fleet_file, "--dry")
    for host in hosts:
        assert swaps(host), "a dry run must not change anything"
    real = deploy(lab, fleet_file)
    assert real.rc == 0, real.output
    for host in hosts:
        assert swaps(host) == []
        assert planned.changes(host.name), planned.output
        # Pages move while swap is in use: the figures may differ between two looks, the changes may not.
        assert without_figures(planned.changes(host.name)) == without_figures(real.changes(host.name))
    again = deploy(lab, fleet_file, "--dry")
    assert [again.changes(host.name) for host in hosts] == [{}, {}]


def without_figures(changes: dict[str, list[str]]) -> dict[str, list[str]]:
    return {measure: sorted(line.partition(" (")[0] for line in lines) for measure, lines in changes.items()}


def test_a_drop_in_that_takes_the_guard_back_is_reported_and_left(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    override = "/etc/systemd/system/swap.d/zzz-local.conf"
    hosts[0].sudo(f"printf '[Unit]\\nConditionPathExists=\\n' | tee {override} && systemctl daemon-reload")
    result = deploy(lab, fleet_file, "--limit", hosts[0].name)
    assert result.rc == 1
    (line,) = [line for line in result.lines(hosts[0].name, "swap") if "can start at boot" in line][:1]
    assert override in line
    assert "remove it, or set swap.mode to keep" in line
    assert hosts[0].sudo(f"test -e {override} && rm {override} && systemctl daemon-reload").rc == 0


def test_swapoff_that_memory_cannot_hold_is_refused_with_figures(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fleet_file: Path
) -> None:
    host = hosts[0]
    host.sudo(
        "fallocate -l 700M /heavy.img && chmod 600 /heavy.img && mkswap /heavy.img && swapon /heavy.img"
        # MemoryHigh makes the kernel move this job's pages out; the second job takes the memory they would need.
        " && systemd-run --unit=swapped -p MemoryHigh=64M stress-ng --vm 1 --vm-bytes 600M --vm-keep --vm-hang 0"
        " && systemd-run --unit=resident -p MemorySwapMax=0 stress-ng --vm 1 --vm-bytes 650M --vm-keep --vm-hang 0"
    )
    wait_for(host, "test $(awk '/heavy/{print $4}' /proc/swaps) -gt 450000", timeout=180)
    wait_for(host, "test $(awk '/MemAvailable/{print $2}' /proc/meminfo) -lt 600000", timeout=180)
    try:
        result = deploy(lab, fleet_file, "--limit", host.name)
        assert result.rc == 1
        (refusal,) = {line for line in result.lines(host.name, "swap") if line.startswith("swapoff refused: ")}
        assert "MiB are in use on /heavy.img, but MemAvailable is " in refusal
        assert "128 MiB must stay free (swap.margin)" in refusal
        assert "Traceback" not in result.output
        assert swaps(host) == ["/heavy.img"], "the refused swap must still be on"
        for unit in ("swapped", "resident"):
            assert host.run(f"systemctl is-active {unit}").stdout.strip() == "active"
    finally:
        host.sudo("systemctl stop swapped resident; swapoff /heavy.img; rm /heavy.img", check=False)
    assert deploy(lab, fleet_file, "--limit", host.name).rc == 0


def test_keep_leaves_swap_alone_and_absent_brings_it_back(
    lab: Lab, first: Deployed, hosts: tuple[Host, Host], fstab_before: dict[str, str], tmp_path: Path
) -> None:
    unmanaged = all_but("swap")
    keep = fleet(lab, hosts, tmp_path / "keep.yaml", defaults={**unmanaged, "swap": {"mode": "keep"}})
    hosts[0].sudo("sed -i 's/^# swapped off by sparkfleet: //' /etc/fstab")
    assert deploy(lab, keep, "--limit", hosts[0].name).changes(hosts[0].name) == {}
    absent = fleet(lab, hosts, tmp_path / "absent.yaml", defaults={**unmanaged, "swap": {"state": "absent"}})
    result = deploy(lab, absent)
    # /new.img of the drift above never existed: that one is named, and holds up no other.
    assert result.rc == 1
    assert "new.img.swap does not start" in " ".join(result.lines(hosts[0].name, "swap")), result.output
    assert f"[{hosts[1].name}] not applied" not in result.output
    for host in hosts:
        assert swaps(host), result.output
        assert host.run(f"test -e {DROP_IN}", check=False).rc == 1
    again = deploy(lab, absent)
    assert again.rc == 0, again.output
    assert [again.changes(host.name) for host in hosts] == [{}, {}]
