"""Versions: what goes together, what is known to fail, and which programs look like a second memory killer."""

from __future__ import annotations

import re
from datetime import date, timedelta

import pytest

from sparkfleet.audit.controls import versions_judges as judges
from sparkfleet.audit.known_bad import OLD, Listing, listing
from sparkfleet.audit.model import Evidence, Judgement, NoEvidence, Observation, Status
from sparkfleet.audit.probe.as_root_host import A_KILLER
from sparkfleet.audit.probe.as_root_packages import A_KERNELS, PLATFORM
from sparkfleet.settings import HostSettings

SETTINGS = HostSettings()
GPU = "1 NVIDIA GPUs\n000f:01:00.0 0x10de:0x2e12\n"


def evidence(**outputs: str) -> Evidence:
    return Evidence({name: Observation("x", text) for name, text in {"gpus": GPU, **outputs}.items()})


def toolkit(release: str, cuda: str) -> Judgement:
    return judges.toolkit(
        evidence(
            nvcc=f"Cuda compilation tools, release {release}, V{release}.88\n",
            nvidia_cuda=f"CUDA Version        : {cuda}\n",
        ),
        SETTINGS,
    )


@pytest.mark.parametrize(
    ("release", "cuda", "status"),
    [
        ("13.0", "13.0", Status.PASS),
        ("13.0", "13.2", Status.PASS),
        ("13.2", "13.5", Status.PASS),
        ("13.2", "13.0", Status.FAIL),
        ("13.10", "13.9", Status.FAIL),
        ("13.9", "13.10", Status.PASS),
        ("12.9", "13.0", Status.FAIL),
        ("13.0", "12.8", Status.FAIL),
        ("13.3", "14.0", Status.PASS),
    ],
)
def test_a_toolkit_is_well_up_to_the_drivers_cuda(release: str, cuda: str, status: Status) -> None:
    assert toolkit(release, cuda).status is status


def test_a_driver_that_does_not_say_is_no_pass() -> None:
    with pytest.raises(NoEvidence):
        judges.toolkit(
            evidence(nvcc="Cuda compilation tools, release 13.0, V13.0.88\n", nvidia_cuda="oops\n"), SETTINGS
        )


def known(kernel: str = "6.17.0-1032-nvidia", toolkit: str = "none", driver: str = "580.173.02") -> Judgement:
    smi = f"NVIDIA GB10, {driver}, 12.1\n"
    return judges.known_to_fail(evidence(kernel=kernel, container_toolkit=toolkit, nvidia_smi=smi), SETTINGS)


def test_what_is_reported_to_fail_is_told_with_its_source_and_date() -> None:
    assert known().status is Status.PASS
    found = known(kernel="6.17.0-1008-nvidia", toolkit="1.20.0-1")
    assert found.status is Status.FAIL
    for word in (
        "kernel 6.17.0-1008-nvidia: panics",
        "forums.developer.nvidia.com/t/366026",
        "issues/1967, 2026-09-22",
    ):
        assert word in found.saw
    assert known(kernel="6.17.0-10080-nvidia").status is Status.PASS


def test_the_list_says_of_itself_that_it_is_old() -> None:
    made = Listing((), date(2026, 1, 1))
    assert made.age(made.checked + timedelta(days=OLD)) == "list of 2026-01-01"
    assert "121 days old: a newer sparkfleet may know more" in made.age(made.checked + timedelta(days=OLD + 1))


def test_each_report_of_the_list_can_be_followed() -> None:
    found = listing()
    assert found.known
    for report in found.known:
        assert report.kind in ("kernel", "driver", "container-toolkit")
        assert re.fullmatch(r"https://\S+", report.source)
        assert report.reported <= found.checked
        assert report.versions
        assert not any(re.fullmatch(r"[*?.-]*", pattern) for pattern in report.versions), "it would fit everything"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("0 packages not whole\n", Status.PASS),
        ("1 packages not whole\nnvidia-driver-580-open half-configured\n", Status.FAIL),
    ],
)
def test_a_package_that_is_not_whole_is_red(text: str, status: Status) -> None:
    assert judges.whole(evidence(broken_packages=text), SETTINGS).status is status


@pytest.mark.parametrize("name", ["earlyoom", "dgx-anti-oom", "memwatch", "mem-guard", "systemd-oomd", "nohang"])
def test_a_killer_is_known_by_its_name(name: str) -> None:
    assert A_KILLER.fullmatch(name)


@pytest.mark.parametrize("name", ["sshd", "python3", "zoom", "bloomd", "mushroom.service", "sparkfleet-watc"])
def test_others_are_not_taken_for_one(name: str) -> None:
    assert not A_KILLER.fullmatch(name)


def test_an_old_kernels_packages_may_go_and_the_platforms_may_not() -> None:
    def taken(name: str) -> bool:
        return bool(PLATFORM.fullmatch(name)) and not A_KERNELS.search(name)

    assert all(
        map(taken, ("nvidia-spark-fstab-config", "dgx-release", "linux-nvidia-hwe-24.04", "libnvidia-compute-580"))
    )
    assert not any(
        map(taken, ("linux-modules-nvidia-580-open-6.11.0-1016-nvidia", "linux-image-6.11.0-1016-nvidia", "vim"))
    )
