"""How the lab starts, finds and reaches its hosts, and what it says when it cannot."""

import io
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import Lab, LabError, accel, qemu, tools, waiting
from tests.lab.__main__ import fleet, parser
from tests.lab.image import Image
from tests.lab.profiles import profile
from tests.lab.state import State


@pytest.fixture
def machine(tmp_path: Path) -> qemu.Machine:
    return qemu.Machine(
        title="sparkfleet-test-spark2",
        profile=profile("spark2", arch="amd64"),
        image=Image(tmp_path / "image"),
        accel="tcg",
        directory=tmp_path,
        sockets=tmp_path,
        port=2402,
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("lab"), 2501, quiet=True)
    made.refresh("spark2")
    yield made
    made.sockets.rmdir()


def test_ssh_is_forwarded_from_the_loopback_only(machine: qemu.Machine) -> None:
    words = qemu.argv(machine)
    assert [word for word in words if "hostfwd" in word] == ["user,id=net,hostfwd=tcp:127.0.0.1:2402-:22"]
    assert any("seed.tar" in word and "readonly=on" in word for word in words)
    assert "kvm" not in words


def test_arm64_is_another_machine_with_another_console(machine: qemu.Machine) -> None:
    words = qemu.argv(replace(machine, profile=replace(machine.profile, arch="arm64")))
    assert words[0] == "qemu-system-aarch64"
    assert "virt" in words
    assert any("console=ttyAMA0" in word for word in words)


def test_a_reused_process_id_is_not_taken_for_qemu(machine: qemu.Machine) -> None:
    assert qemu.pid(machine) is None
    machine.pidfile.write_text(f"{os.getpid()}\n")
    assert qemu.pid(machine) is None
    machine.pidfile.write_text("rubbish")
    assert qemu.pid(machine) is None


def test_a_taken_port_is_one_clear_line(machine: qemu.Machine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = replace(machine, port=other.getsockname()[1])
        with pytest.raises(LabError, match=rf"port {taken.port} .* in use .*SPARKFLEET_LAB_PORT"):
            qemu.start(taken)


def test_the_accelerator_can_be_forced_and_foreign_machines_are_emulated(
    machine: qemu.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARKFLEET_LAB_ACCEL", "kvm")
    assert accel.choose("amd64", machine.image) == "kvm"
    monkeypatch.delenv("SPARKFLEET_LAB_ACCEL")
    monkeypatch.setattr(accel, "native_arch", lambda: "amd64")
    assert accel.choose("arm64", machine.image) == "tcg"


def test_a_probe_that_cannot_run_means_no_kvm(machine: qemu.Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "probe_argv", lambda arch, image: ["/nonexistent/qemu"])
    assert not accel.kvm_boots("amd64", machine.image)
    monkeypatch.setattr(accel, "probe_argv", lambda arch, image: ["echo", "hangs before init"])
    assert not accel.kvm_boots("amd64", machine.image)
    monkeypatch.setattr(accel, "probe_argv", lambda arch, image: ["echo", "Kernel panic: Attempted to kill init!"])
    assert accel.kvm_boots("amd64", machine.image)


def test_host_keys_are_pinned_before_the_first_boot(lab: Lab) -> None:
    pins = [line.split() for line in lab.known_hosts.read_text().splitlines()]
    assert {pin[0] for pin in pins} == {"[127.0.0.1]:2502"}
    assert {pin[1] for pin in pins} == {"ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"}
    config = lab.ssh_config.read_text()
    assert "StrictHostKeyChecking yes" in config
    assert "Host spark2-alice" in config
    assert f'IdentityFile "{lab.user_key}"' in config


def test_secrets_are_closed_to_others_and_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARKFLEET_LAB_PORT", raising=False)
    for path in (lab.admin_password_file, lab.admin_key, lab.user_key):
        assert path.stat().st_mode & 0o077 == 0
    again = Lab(lab.directory, quiet=True)
    assert again.admin_password == lab.admin_password
    assert again.host("spark2").port == 2502


def test_labs_side_by_side_share_nothing(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other", 2601, quiet=True)
    assert other.sockets != lab.sockets
    assert other.admin_password != lab.admin_password
    assert other.host("spark1").port == 2601
    other.sockets.rmdir()


def test_the_ports_of_existing_hosts_do_not_move(lab: Lab) -> None:
    with pytest.raises(LabError, match="use base port 2501, not 2701"):
        Lab(lab.directory, 2701, quiet=True)


def test_hosts_that_are_not_there_are_one_clear_line(lab: Lab) -> None:
    for act in (lab.host("spark2").restore, lab.host("spark2").snapshot):
        with pytest.raises(LabError, match="spark2 has no disk"):
            act("before")
    with pytest.raises(LabError, match="spark2: its console does not answer"):
        lab.host("spark2").console_run("true")
    with pytest.raises(LabError, match="bad name"):
        lab.host("spark2").snapshot("a b; quit")
    with pytest.raises(LabError, match="qemu has ended"):
        waiting.for_ssh(lab.host("spark2"), 5)


def test_a_damaged_state_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"image": "x", "odd": 1}')
    with pytest.raises(LabError, match="is damaged"):
        State.load(path)


def test_the_fleet_file_names_every_host(lab: Lab) -> None:
    text = fleet(lab)
    assert "  spark2:\n    address: 127.0.0.1\n    port: 2502\n" in text
    assert str(lab.known_hosts) in text


def test_a_command_after_the_host_is_not_read_as_an_option() -> None:
    assert parser().parse_args(["ssh", "spark1", "ls", "-l", "--all"]).cmd == ["ls", "-l", "--all"]


def test_mirrors_are_whole_archives_of_the_right_distribution() -> None:
    lines = [
        "Docker bookworm https://example.org/linux/debian/",
        "Debian bookworm-security http://example.net/debian-security/",
        "Debian bookworm-updates http://example.net/debian/",
        "Debian bookworm http://example.net/debian/",
        "Ubuntu noble http://example.com/ubuntu",
        "$(ORIGIN)",
    ]
    assert tools.pick_mirror(lines, ubuntu=False) == "http://example.net/debian/"
    assert tools.pick_mirror(lines, ubuntu=True) == "http://example.com/ubuntu"
    assert tools.pick_mirror(lines[:3], ubuntu=False) is None


def test_arm64_tools_are_wanted_for_arm64_hosts_only() -> None:
    native = {tool.package for tool in tools.needed("amd64", "amd64")}
    foreign = {tool.package for tool in tools.needed("arm64", "amd64")}
    assert "qemu-system-x86" in native
    assert "qemu-system-arm" not in native
    assert {"qemu-system-arm", "qemu-user-static", "binfmt-support", "arch-test"} <= foreign


def test_without_tools_and_apt_it_says_so_and_ends_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda program: None)
    with pytest.raises(LabError, match=r"^missing mmdebstrap.*no apt here") as caught:
        tools.ensure("amd64", "amd64")
    assert caught.value.status == 4
    assert "\n" not in str(caught.value)


def test_a_browser_a_compiler_and_a_tracer_are_wanted_for_tests_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tools, "find", lambda program: None if program in tools.BROWSERS else f"/usr/bin/{program}")
    monkeypatch.setattr(tools, "distribution", lambda: "debian")
    assert {tool.package for tool in tools.for_tests()} == {"chromium-headless-shell", "gcc", "libc6-dev", "strace"}
    tools.ensure("amd64", "amd64")
    monkeypatch.setattr(tools, "distribution", lambda: "ubuntu")
    assert tools.browser_tools() == []
    assert "tests of the audit's HTML page will be skipped" in capsys.readouterr().err
    monkeypatch.setattr(tools, "find", lambda program: f"/usr/bin/{program}")
    assert tools.browser() == "/usr/bin/chromium-headless-shell"
    assert tools.browser_tools() == []


def test_nothing_is_installed_unasked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("YES", raising=False)
    monkeypatch.setattr(tools, "find", lambda program: None if program == "qemu-img" else f"/usr/bin/{program}")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(LabError, match="set YES=1"):
        tools.ensure("amd64", "amd64")
    assert "apt-get install qemu-utils" in capsys.readouterr().err
