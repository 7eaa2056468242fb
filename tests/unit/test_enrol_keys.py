"""Host keys and the admin's keys, with the system's own ssh-keygen as the judge."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from sparkfleet.enrol import hostkey, keys
from sparkfleet.enrol.hostkey import HostKey, Offer
from sparkfleet.exit_codes import CommandFailed, ExitCode


def make(path: Path, kind: str = "ed25519", passphrase: str = "") -> HostKey:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "a comment", "-f", path], check=True)
    words = path.with_name(f"{path.name}.pub").read_text().split()
    return HostKey(words[0], words[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def key(folder: Path) -> HostKey:
    return make(folder / "host")


@pytest.fixture(scope="module")
def other(folder: Path) -> HostKey:
    return make(folder / "other")


def test_the_fingerprint_is_that_of_ssh_keygen(folder: Path, key: HostKey) -> None:
    shown = subprocess.run(["ssh-keygen", "-lf", folder / "host.pub"], capture_output=True, text=True, check=True)
    assert key.fingerprint == shown.stdout.split()[1]
    assert hostkey.normal_fingerprint(f" {key.fingerprint}= ") == key.fingerprint
    assert hostkey.normal_fingerprint(key.fingerprint.removeprefix("SHA256:")) == key.fingerprint


@pytest.mark.parametrize("text", ["", "SHA256:", "yes", "MD5:00:11", "SHA256:" + "a" * 42, "SHA256:" + "a" * 44])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        hostkey.normal_fingerprint(text)


def test_the_record_of_what_ssh_was_offered(key: HostKey) -> None:
    text = f"ORDER [::1]:22 NONE NONE\nHOSTNAME [::1]:2222 {key.kind} {key.data}\nADDRESS ::1 {key.kind} {key.data}\n"
    assert hostkey.record_of(text) == ("[::1]:2222", key)
    assert hostkey.record_of("ORDER a NONE NONE\nHOSTNAME a NONE NONE NONE\n") is None
    assert hostkey.record_of("HOSTNAME a ssh-ed25519 $(id)\n") is None


def test_a_pin_is_one_whole_line_in_a_private_file(tmp_path: Path, key: HostKey) -> None:
    path = tmp_path / "new" / "known_hosts"
    hostkey.pin(path, ["[a]:2222", "b"], key)
    assert path.read_text() == f"[a]:2222,b {key.kind} {key.data}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert hostkey.unpinned(path, Offer(key, ("[a]:2222", "b", "c"))) == ("c",)


def test_a_pin_leaves_the_rest_and_the_mode_alone(tmp_path: Path, key: HostKey) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(b"# \xff odd\nx ssh-rsa AAAA")
    path.chmod(0o644)
    hostkey.pin(path, ["a"], key)
    assert path.read_bytes() == b"# \xff odd\nx ssh-rsa AAAA\n" + f"a {key.kind} {key.data}\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_part_of_a_pin_is_taken_back(tmp_path: Path, key: HostKey, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("x ssh-rsa AAAA\n")
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    with pytest.raises(CommandFailed, match="cannot be written"):
        hostkey.pin(path, ["a"], key)
    assert path.read_text() == "x ssh-rsa AAAA\n"


def test_another_key_is_refused_by_the_line(tmp_path: Path, key: HostKey, other: HostKey) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# pins\n\nz {key.kind} {key.data}\n[a]:2222,b {other.kind} {other.data}\n")
    with pytest.raises(CommandFailed) as caught:
        hostkey.unpinned(path, Offer(key, ("b",)))
    assert str(caught.value).startswith(f"{path}:4: another key is pinned for b: {other.fingerprint}")
    assert "\n" not in str(caught.value)
    assert caught.value.code == ExitCode.UNREACHABLE


def test_hashed_lines_patterns_and_markers_count(tmp_path: Path, key: HostKey, other: HostKey) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"a {key.kind} {key.data}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], capture_output=True, check=True)
    assert "a " not in path.read_text().split("|")[0]
    with path.open("a") as stream:
        stream.write(f"*.lab {key.kind} {key.data}\n@cert-authority c {other.kind} {other.data}\n")
        stream.write(f"@revoked * {other.kind} {other.data}\n")
    assert hostkey.unpinned(path, Offer(key, ("a", "x.lab", "c"))) == ("c",)
    with pytest.raises(CommandFailed, match=r":4: the key that d offers .* is revoked"):
        hostkey.unpinned(path, Offer(other, ("d",)))


def test_the_same_key_on_another_host_is_noticed(tmp_path: Path, key: HostKey) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# {key.data}\n\nfirst {key.kind} {key.data}\n")
    assert hostkey.lines_with(path, key) == [3]
    assert hostkey.lines_with(tmp_path / "none", key) == []


# -- the admin's keys -----------------------------------------------------------------------------------------------


def test_one_public_key_and_nothing_else(folder: Path, key: HostKey) -> None:
    line = f"{key.kind} {key.data} a comment"
    assert keys.public_line(f"# mine\n{line}\r\n") == line
    for text in (
        (folder / "host").read_text(),
        f"{line}\n{line}\n",
        f'command="x" {line}',
        line.replace("ed25519", "rsa"),
        f"{line}\x1b[2J",
        "ssh-ed25519 AAAA",
        "",
    ):
        assert keys.public_line(text) is None


def test_a_named_key(tmp_path: Path) -> None:
    key = make(tmp_path / "id")
    for path in (tmp_path / "id", tmp_path / "id.pub"):
        found = keys.named_key(path, [])
        assert (found.data, found.identity, found.private) == (key.data, tmp_path / "id", tmp_path / "id")


def test_a_key_with_a_passphrase_needs_the_agent(tmp_path: Path) -> None:
    key = make(tmp_path / "id", passphrase="secret")
    with pytest.raises(CommandFailed, match="has a passphrase and is not in your agent: run `ssh-add "):
        keys.named_key(tmp_path / "id.pub", [])
    found = keys.named_key(tmp_path / "id.pub", [f"{key.kind} {key.data} there"])
    assert (found.identity, found.private) == (tmp_path / "id.pub", None)
    (tmp_path / "id").unlink()
    assert keys.named_key(tmp_path / "id.pub", [f"{key.kind} {key.data}"]).identity == tmp_path / "id.pub"
    with pytest.raises(CommandFailed, match="neither beside it nor in your agent"):
        keys.named_key(tmp_path / "id.pub", [])


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read: No such file"), ("hello", "expected one public")])
def test_what_is_no_key_is_bad_configuration(text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "id.pub").write_text(text)
    with pytest.raises(CommandFailed, match=said) as caught:
        keys.named_key(tmp_path / "id.pub", [])
    assert caught.value.code == ExitCode.BAD_CONFIGURATION


def test_the_usual_key_is_the_first_that_needs_no_person(tmp_path: Path) -> None:
    make(tmp_path / "locked", passphrase="secret")
    key = make(tmp_path / "open")
    settings = {"identityfile": [str(tmp_path / name) for name in ("none", "locked", "open")]}
    assert keys.usual_key(settings, []).data == key.data
    agent = ["ssh-ed25519 AAAA in the agent"]
    assert keys.usual_key({}, agent).line == agent[0]
    with pytest.raises(CommandFailed, match="no SSH key that can be used without a passphrase: make one with"):
        keys.usual_key({"identityfile": [str(tmp_path / "locked")]}, [])


def test_no_agent_where_ssh_config_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert keys.agent_lines({"identityagent": ["none"]}) == []
    assert keys.agent_lines({}) == []
