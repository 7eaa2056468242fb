"""The probe's course on a host: as the login user, beside it as root through sudo, one document at the end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from sparkfleet.audit.probe import as_root, as_user
from sparkfleet.audit.probe.frame import PASSWORD, BadFrame, framed, unframed
from sparkfleet.audit.probe.look import Looks, Parameters, Seen, look, run

VERSION = 1
"""Of the document."""
ROOT_BYTES = 2 * 1024 * 1024
# -k: a cached login would leave the password unread, and the program would begin with it. -p '': no prompt.
SUDO_PASSWORD = ("sudo", "-H", "-k", "-S", "-p", "")
SUDO_PLAIN = ("sudo", "-H", "-n")
WANTS = ("a password is required", "no askpass program")


def main(source: bytes) -> int:
    """Reads its parameters, a line of JSON; looks, and prints the document.

    `source`: this whole program, packed, for the part that runs as root.
    """
    began = time.monotonic()
    parameters = json.loads(sys.stdin.buffer.readline())
    token = parameters["token"]
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(parameters["seconds"])
    if parameters["part"] == "root":
        print(framed(token, {"observations": looked("root", as_root.LOOKS, parameters)}), flush=True)
        return 0
    with ThreadPoolExecutor(1) as pool:
        root = pool.submit(as_root_part, source, parameters)
        observations = looked("user", as_user.LOOKS, parameters)
        privileged, problem = root.result()
    document = {
        "version": VERSION,
        "boot_id": boot_id(),
        "seconds": round(time.monotonic() - began, 3),
        "problem": problem,
        "observations": {**observations, **privileged},
    }
    print(framed(token, document), flush=True)
    return 0


def looked(part: str, looks: Mapping[str, Looks], parameters: dict[str, Any]) -> dict[str, Any]:
    """What these looks see, and the commands of a site's own controls; of one name ours counts."""
    site = {name: partial(command, name, words) for name, words in parameters["site"][part].items()}
    return {**look(site, parameters), **look(looks, parameters)}


def command(name: str, words: Sequence[str], parameters: Parameters) -> Mapping[str, Seen]:
    return {name: run(words)}


def too_late(signum: int, frame: object) -> None:
    """Ends the probe with a word: killed by a signal it would look like a lost connection (ssh's 255)."""
    os.write(2, b"the probe has not ended in its time\n")
    os._exit(124)


def loader(size: int) -> str:
    """For `python3 -c`: runs the packed program of `size` bytes on standard input; the rest stays for it to read.

    Not one quote or comma in it: every login shell takes it for the same.
    """
    read = f"import sys; import zlib; import base64; source = sys.stdin.buffer.read({size})"
    return f"{read}; exec(zlib.decompress(base64.b64decode(source)))"


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:  # noqa: PTH123 - short, on a host
        return stream.read().strip()


def as_root_part(source: bytes, parameters: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What root sees, and why it saw nothing ("": it did)."""
    if os.geteuid() == 0:
        return looked("root", as_root.LOOKS, parameters), ""
    python = ("/usr/bin/python3", "-I", "-S", "-B", "-c", loader(len(source)))
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
    longest = max(5, parameters["seconds"] - 5)
    request = source + json.dumps({**parameters, "part": "root", "seconds": longest}).encode() + b"\n"
    answer = run((*SUDO_PLAIN, "--", *python), env=environment, data=request, limit=ROOT_BYTES, seconds=longest)
    if answer.rc and any(words in answer.error for words in WANTS):
        print(f"\n{PASSWORD} {parameters['token']}", flush=True)
        password = sys.stdin.buffer.readline().rstrip(b"\n")
        if not password:
            return {}, "sudo wants a password and none was given"
        # Tried alone first: with a wrong one sudo would take the next lines of its input for further tries.
        tried = run((*SUDO_PASSWORD, "--", "true"), env=environment, data=password + b"\n", seconds=60)
        if tried.rc:
            return {}, f"sudo refused the password: {one_line(tried.error)}"
        words = (*SUDO_PASSWORD, "--", *python)
        request = password + b"\n" + request
        answer = run(words, env=environment, data=request, limit=ROOT_BYTES, seconds=longest)
    if answer.rc:
        return {}, f"sudo failed: {one_line(answer.error)}"
    try:
        observations = unframed(answer.output.encode(), parameters["token"])["observations"]
    except (BadFrame, KeyError) as error:
        return {}, f"the part of the probe that runs as root said nothing: {error}"
    return dict(observations), ""


def one_line(text: str) -> str:
    return " ".join(text.split())[:300] or "no message"
