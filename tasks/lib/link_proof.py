"""Proves a change to a host's links before it is kept: every peer answers on each rail, and people still get in.

The hosts of a group change in the same run, side by side, so each waits for its peers a while. What fails is taken
back, by the host itself where nobody can tell it (`sparkhost.cluster_link.guarded`).
"""

from __future__ import annotations

from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.ssh import SSHConnector

from sparkhost.cluster_link.guarded import LinkProof
from tasks.lib import proof
from tasks.lib.way import Way

MEASURE = "cluster_link"
FOR_LOGIN = 60.0
"""Seconds that are left of the host's own limit for the login after the peers have answered, at most half of it."""


def prove(state: State, host: Host, guarded: dict[str, Any], way: Way) -> list[str]:
    """Proves the change that this run has just made, or has it taken back.

    `guarded`: the request of the resource that made it. Returns what went wrong, one line each; none: proved and kept.
    """
    limit = float(guarded["confirm_within"])
    seconds = limit - min(FOR_LOGIN, limit / 2)
    try:
        if guarded["rails"]:
            proof.say(host, "armed: every peer on each rail", MEASURE)
            asked = LinkProof(guarded["token"], guarded["rails"], guarded["devices"], seconds)
            proof.ask(way, host.connector, "peers", asked, int(limit + FOR_LOGIN))
        if not isinstance(host.connector, SSHConnector):
            proof.step(way, host.connector, guarded, "confirm", local=True)
        else:
            confirm_anew(state, host, guarded, way)
    except Exception as error:  # whatever it is, the change is not proved
        return [proof.taken_back(way, state, host, guarded, proof.one_line(error), MEASURE)]
    proof.say(host, "kept: every peer answers on each rail, and a new login works", MEASURE)
    return []


def confirm_anew(state: State, host: Host, guarded: dict[str, Any], way: Way) -> None:
    """Confirms over a connection that was made after the change. Raises what a login or a step does."""
    proof.say(host, "armed: login over a new connection", MEASURE)
    login = proof.Login(state, host)
    try:
        login.connect()
        proof.step(way, login, guarded, "confirm")
    finally:
        login.close()
