"""What is made of pyinfra's SSH client."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from pyinfra.connectors.sshuserclient.config import SSHConfig

from tasks.lib.connection import with_every_identity, without_jump_to_none


def attach(config: dict[str, Any], ssh_config: dict[str, Any]) -> None:
    config["attached"] = True


@pytest.mark.parametrize(
    ("names", "more", "expected"),
    [
        (["a", "b"], {}, {"key_filename": ["a", "b"]}),
        (["gone", "a", "b"], {}, {"key_filename": ["a", "b"]}),
        (["gone", "a"], {}, {"key_filename": ["a"], "attached": True}),
        (["gone"], {}, {}),
        (["a", "b"], {"certificatefile": ["c"]}, {"key_filename": ["a", "b"], "attached": True}),
    ],
)
def test_every_key_that_is_there_is_tried(
    tmp_path: Path, names: list[str], more: dict[str, Any], expected: dict[str, Any]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    config = {"port": 22, "key_filename": [str(tmp_path / name) for name in names]}
    with_every_identity(attach)(config, {"identityfile": config["key_filename"], **more})
    if "key_filename" in expected:
        expected["key_filename"] = [str(tmp_path / name) for name in expected["key_filename"]]
    assert config == {"port": 22, **expected}


def test_no_jump_host_is_called_none() -> None:
    config: Any = SSHConfig()
    config.parse(io.StringIO("Host gate\nProxyJump none\nHost *\nProxyJump gate\n"))
    lookup = without_jump_to_none(SSHConfig.lookup)
    assert "proxyjump" not in lookup(config, "gate")
    assert lookup(config, "far")["proxyjump"] == "gate"
