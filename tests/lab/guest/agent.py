"""The lab's stand-in for a person at the machine: a root shell that needs no network and no sshd.

Runs inside a lab host, never on a real one. Reads one JSON request a line from a virtio port
({"id", "cmd", "input", "timeout"}; text, seconds) and answers with one JSON line ({"id", "rc", "out", "err"}).
"""

from __future__ import annotations

import json
import os
import subprocess
import time

PORT = "/dev/virtio-ports/sparkfleet.agent"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _child() -> None:
    """What a console shell has: the default OOM score, not this agent's protection."""
    os.setsid()
    with open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
        score.write("0")


def answer(request: dict[str, object]) -> dict[str, object]:
    """Run one request as root in bash; rc 124 where it ran out of time."""
    timeout = request.get("timeout", 60)
    try:
        done = subprocess.run(
            ["/bin/bash", "-c", str(request["cmd"])],
            input=str(request.get("input") or "").encode(),
            capture_output=True,
            timeout=float(timeout) if isinstance(timeout, (int, float)) else 60.0,
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "USER": "root", "LOGNAME": "root"},
            cwd="/",
            preexec_fn=_child,
            check=False,
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, out, err = 124, late.stdout or b"", late.stderr or b""
    return {
        "id": request.get("id"),
        "rc": code,
        "out": out.decode(errors="replace"),
        "err": err.decode(errors="replace"),
    }


def main() -> None:
    """Serve until the host stops."""
    port = os.open(PORT, os.O_RDWR)
    waiting = b""
    while True:
        chunk = os.read(port, 65536)
        if not chunk:  # nobody is connected
            waiting = b""
            time.sleep(0.2)
            continue
        waiting += chunk
        while b"\n" in waiting:
            line, waiting = waiting.split(b"\n", 1)
            try:
                request = json.loads(line)
            except ValueError:
                continue
            reply = json.dumps(answer(request)).encode() + b"\n"
            while reply:
                reply = reply[os.write(port, reply) :]


if __name__ == "__main__":
    main()
