"""Pytest fixtures: hosts of a lab of the tests' own, each clean at the start of a test module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Host, Lab
from tests.lab.lab import ROOT

PORT = 2301


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab of the tests (`$SPARKFLEET_LAB`, default `.lab/test`); switched off at the end."""
    chosen = os.environ.get("SPARKFLEET_LAB")
    port = None if os.environ.get("SPARKFLEET_LAB_PORT") else PORT
    made = Lab(Path(chosen) if chosen else ROOT / ".lab" / "test", port)
    yield made
    for name in made.names:
        made.host(name).stop()


@pytest.fixture(scope="module")
def spark1(lab: Lab) -> Host:
    """Debian 12, ssh.service, sudo without a password; swap from fstab, zram and a .swap unit."""
    host = lab.host("spark1")
    host.clean()
    return host


@pytest.fixture(scope="module")
def spark2(lab: Lab) -> Host:
    """Debian 13, ssh.socket, sudo with a password; swap from a GPT partition and a .swap unit."""
    host = lab.host("spark2")
    host.clean()
    return host
