"""Which hosts are changed together, and in which order. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings.problems import show


def batch_size(text: str, hosts: int) -> int:
    """How many hosts `N` or `N%` of `hosts` are, at least one; a share is rounded down.

    Raises:
        CommandFailed: it is neither a count from 1 nor a share from 1% to 100%.
    """
    number = text.removesuffix("%")
    share = number != text
    # The length is looked at first: int() refuses numbers of thousands of digits with a traceback.
    fits = number.isascii() and number.isdecimal() and len(number) <= 6
    if not fits or int(number) < 1 or (share and int(number) > 100):
        raise CommandFailed(
            f"--batch {show(text)}: expected a number of hosts from 1, or a share from 1% to 100%",
            ExitCode.BAD_CONFIGURATION,
        )
    return max(1, hosts * int(number) // 100) if share else int(number)


def check_canaries(hosts: Sequence[str], canaries: Sequence[str]) -> None:
    """Raises CommandFailed where a canary is not among the hosts."""
    for canary in canaries:
        if canary not in hosts:
            raise CommandFailed(
                f"--canary {show(canary)} is not among the hosts of this run: {', '.join(hosts[:20])}",
                ExitCode.BAD_CONFIGURATION,
            )


def next_batch(waiting: Sequence[str], canaries: Sequence[str], size: int, *, proved: bool) -> tuple[str, ...]:
    """The hosts to change now, in the order of `waiting`; empty where nobody waits.

    Canaries come first, together. As long as no host has passed (`proved`), as when every canary was in use, a single
    other one takes their place.
    """
    if first := tuple(host for host in waiting if host in canaries):
        return first
    return tuple(waiting[: size if proved else 1])
