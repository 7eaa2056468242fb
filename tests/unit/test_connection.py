"""What an SSH login of ours is told beside what pyinfra tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyinfra.connectors.sshuserclient.client import SSHClient

from tasks.lib.bounds import BoundedTransport
from tasks.lib.connection import login_arguments


def told(folder: Path, config: str, host: str = "spark", **more: Any) -> dict[str, Any]:
    """The arguments for a host with this ssh_config; what its `connect` makes of them, without the jump hosts."""
    for name in ("a", "b"):
        (folder / name).touch()
    (folder / "config").write_text(config.format(folder=folder))
    data = {"ssh_config_file": str(folder / "config"), "ssh_hostname": host, "ssh_key": None, **more}
    return login_arguments(data)


def parsed(host: str, config: Path, found: dict[str, Any]) -> dict[str, Any]:
    """What pyinfra's client makes of arguments and ssh_config."""
    parse_config: Any = SSHClient().parse_config
    _, made, *_ = parse_config(host, found, ssh_config_file=str(config))
    return dict(made)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["IdentityFile {folder}/a", "IdentityFile {folder}/b"], ["a", "b"]),
        (["IdentityFile {folder}/gone", "IdentityFile {folder}/a", "IdentityFile {folder}/b"], ["a", "b"]),
        (["IdentityFile {folder}/gone"], []),
        (["IdentityFile {folder}/gone", "IdentityFile {folder}/a"], None),
        (["IdentityFile {folder}/a", "IdentityFile {folder}/b", "CertificateFile {folder}/c"], None),
        (["User ann"], None),
    ],
)
def test_every_key_that_is_there_is_tried(tmp_path: Path, lines: list[str], expected: list[str] | None) -> None:
    found = told(tmp_path, "\n".join(["Host *", *lines, ""]))
    assert found.pop("transport_factory") is BoundedTransport
    keys = {} if expected is None else {"pkey": None, "key_filename": [str(tmp_path / name) for name in expected]}
    assert found == keys
    # And pyinfra adds no key to them.
    config = parsed("spark", tmp_path / "config", dict(found))
    assert {key: value for key, value in config.items() if key in ("pkey", "key_filename")} == keys or expected is None


def test_a_key_of_the_fleet_file_comes_first(tmp_path: Path) -> None:
    found = told(tmp_path, "Host *\nIdentityFile {folder}/a\nIdentityFile {folder}/b\n", ssh_key="~/key")
    assert list(found) == ["transport_factory"]


def test_no_jump_host_is_called_none(tmp_path: Path) -> None:
    config = "Host gate\nProxyJump none\nHost *\nProxyJump gate\n"
    told(tmp_path, config, "gate")
    # Else pyinfra would try to reach a host of the name.
    assert "sock" not in parsed("gate", tmp_path / "config", {})
