"""What only these tests use of the lab: a state that was saved, a cable that is pulled."""

from __future__ import annotations

import pytest

from tests.lab import CommandError, Host


def test_snapshots_and_cables(spark2: Host) -> None:
    host = spark2
    host.snapshot("before")
    host.sudo("touch /etc/after")
    host.restore("before")
    assert host.run("test -e /etc/after", check=False).rc == 1
    host.cut_network(True)
    with pytest.raises(CommandError):
        host.run("true", fresh=True, timeout=8)
    host.cut_network(False)
    assert host.run("true", fresh=True).rc == 0
