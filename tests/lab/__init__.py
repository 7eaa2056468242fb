"""A lab of disposable real hosts: their own kernel, systemd, sshd, swap and cgroup v2, under qemu.

`Lab().host("spark1").clean()` is a booted host in seconds; `python -m tests.lab` is the same for a person.
"""

from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.ssh import CommandError, Completed

__all__ = ["CommandError", "Completed", "Host", "Lab", "LabError"]
