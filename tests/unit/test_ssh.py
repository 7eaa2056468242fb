"""What the ssh measure asks for, and how it reads a host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkfleet.settings import Size, SshSettings
from sparkhost.base.files import File
from sparkhost.base.resource import from_json
from sparkhost.base.systemd import containers_at_risk
from sparkhost.ssh import pam, protection
from sparkhost.ssh.guard import Guarded
from tasks import ssh as measure

MIB = 2**20


def test_the_slice_grants_the_sum_and_each_unit_once() -> None:
    assert measure.granted({"a.service": 1, "b.service": 2}, {"b.service": 5}) == 6


def test_sizes_are_written_in_bytes() -> None:
    guarded = measure.apply(SshSettings(protect={"agent.service": Size(64 * MIB)}))[0]
    assert isinstance(guarded, Guarded)
    contents = {part.path: part.content for part in guarded.parts() if isinstance(part, File)}
    assert f"MemoryMin={512 * MIB}\n" in contents[measure.DROP_IN]
    assert f"MemoryMin={64 * MIB}\n" in contents["/etc/systemd/system/agent.service.d/sparkfleet-oom.conf"]
    assert f"MemoryMin={576 * MIB}\n" in contents[measure.SLICE_DROP_IN]


@pytest.mark.parametrize("make", [measure.apply, measure.remove])
def test_every_file_that_can_change_is_kept_before_it_does(make: type) -> None:
    guarded = make(SshSettings())[0]
    kept = {path for part in guarded.resources for path in from_json(part).touches()}
    assert {measure.HOOK, measure.PROFILE, measure.DROP_IN, measure.SLICE_DROP_IN} <= kept
    assert {"/etc/pam.d/common-session", "/var/lib/pam/seen", "/var/lib/pam/session"} <= kept


def test_pam_lines_are_found_through_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pam, "STACKS", tmp_path)
    (tmp_path / "sshd").write_text("auth required a.so\n@include common-session # c\nsession include other\n")
    (tmp_path / "common-session").write_text("session\toptional\tpam_exec.so quiet /hook\n# session optional no.so\n")
    (tmp_path / "other").write_text("-session [default=1] b.so\n@include sshd\n")
    found = list(pam.lines_of("sshd"))
    assert found == [["session", "optional", "pam_exec.so", "quiet", "/hook"], ["-session", "[default=1]", "b.so"]]


def test_the_whole_path_of_cgroups_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "CGROUPS", tmp_path)
    (tmp_path / "system.slice" / "ssh.service").mkdir(parents=True)
    (tmp_path / "system.slice" / "memory.min").write_text("0\n")
    (tmp_path / "system.slice" / "ssh.service" / "memory.min").write_text("512\n")
    assert protection.short_of("/system.slice/ssh.service", 512) == ("system.slice", 0)
    (tmp_path / "system.slice" / "memory.min").write_text("max\n")
    assert protection.short_of("/system.slice/ssh.service", 512) is None


class Gpu:
    """A host with an NVIDIA device, processes that have it open, and scopes that PID 1 knows. systemctl is a double."""

    def __init__(self, root: Path) -> None:
        self.dev, self.proc, self.units = root / "dev", root / "proc", root / "units"
        for folder in (self.dev / "char", self.proc, self.units, root / "bin"):
            folder.mkdir(parents=True)
        (self.dev / "nvidia0").touch()
        program = root / "bin" / "systemctl"
        program.write_text(
            f'#!/bin/sh\nfor unit; do :; done\ncat "{self.units}/$unit" 2>/dev/null || echo LoadState=not-found\n'
        )
        program.chmod(0o755)

    def process(self, pid: int, cgroup: str) -> None:
        (self.proc / str(pid) / "fd").mkdir(parents=True)
        (self.proc / str(pid) / "fd" / "3").symlink_to("/dev/nvidia0")
        (self.proc / str(pid) / "cgroup").write_text(f"0::{cgroup}\n")

    def scope(self, name: str, cgroup: str, *more: str) -> None:
        (self.units / name).write_text("\n".join(["LoadState=loaded", f"ControlGroup={cgroup}", *more]) + "\n")

    def at_risk(self) -> list[str]:
        return containers_at_risk(self.proc, self.dev)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Gpu(tmp_path)


DOCKER = "docker-0123456789ab.scope"


def test_a_container_of_pid_1_is_at_risk_unless_it_has_the_gpu_from_it(gpu: Gpu) -> None:
    gpu.process(10, f"/system.slice/{DOCKER}")
    gpu.scope(DOCKER, f"/system.slice/{DOCKER}")
    assert gpu.at_risk() == [DOCKER]
    gpu.scope(DOCKER, f"/system.slice/{DOCKER}", "DeviceAllow=/dev/nvidia0 rw")
    assert gpu.at_risk() == []


@pytest.mark.parametrize(
    "place",
    [
        f"/user.slice/user-1001.slice/user@1001.service/{DOCKER}",
        f"/user.slice/user-1001.slice/user@1001.service/user.slice/{DOCKER}/init",
        f"/training.slice/spark-job-1001-0123abcd.service/{DOCKER}",
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_a_cgroup_that_a_user_names_like_a_container_holds_no_reload_back(gpu: Gpu, place: str, known: bool) -> None:
    """Neither by a name of its own, nor by that of a container that PID 1 has elsewhere."""
    gpu.process(10, place)
    if known:
        gpu.scope(DOCKER, f"/system.slice/{DOCKER}")
    assert gpu.at_risk() == []


def test_containers_are_at_risk_only_where_nvidia_devices_are_unknown_to_systemd(tmp_path: Path) -> None:
    (tmp_path / "dev" / "char").mkdir(parents=True)
    assert containers_at_risk(tmp_path / "proc", tmp_path / "dev") == []
    (tmp_path / "dev" / "nvidia0").touch()
    (tmp_path / "dev" / "char" / "195:0").touch()
    assert containers_at_risk(tmp_path / "proc", tmp_path / "dev") == []
