"""What only these tests use of the lab: a state that was saved, a cable that is pulled."""

from __future__ import annotations

import pytest

from tests.lab import CommandError, Host


def test_snapshots_and_cables(spark2: Host) -> None:
    spark2.snapshot("before")
    spark2.sudo("touch /etc/after")
    spark2.restore("before")
    assert spark2.run("test -e /etc/after", check=False).rc == 1
    spark2.cut_network(True)
    with pytest.raises(CommandError):
        spark2.run("true", fresh=True, timeout=8)
    spark2.cut_network(False)
    assert spark2.run("true", fresh=True).rc == 0
