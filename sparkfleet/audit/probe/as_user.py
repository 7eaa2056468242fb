"""What only a fresh session of the login user can show: its score, its environment, its uv."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

from sparkfleet.audit.probe.environment import ENV, session, shown
from sparkfleet.audit.probe.look import Looks, Parameters, Seen, read, run, text

SCORE = "/proc/self/oom_score_adj"


def kind(parameters: Parameters) -> Mapping[str, Seen]:
    """Whether this is a session of sshd's, and whose."""
    way = "ssh" if parameters["ssh"] else "local"
    user = pwd.getpwuid(os.getuid()).pw_name
    return {"session": Seen("echo $SSH_CONNECTION; id -un", f"{way} {user} {os.getuid()}\n")}


def score(parameters: Parameters) -> Mapping[str, Seen]:
    """The session's own score, and whether its user can lower it: tried by a child, which then ends."""
    seen = read(SCORE)
    command = "bash -c 'echo -1 > /proc/self/oom_score_adj'"
    # A child's value is its own: the session, and what runs in it, keep theirs.
    tried = run(("/bin/bash", "-c", f"echo -1 > {SCORE} && /bin/cat {SCORE}"), shown=command)
    if tried.rc == 0:
        said = Seen(command, f"lowered to {tried.output.strip()}\n")
    elif tried.rc in (1, 2) and ("Permission denied" in tried.error or "Operation not permitted" in tried.error):
        said = Seen(command, "refused: Permission denied\n")
    else:
        said = tried
    return {"session_score": seen, "session_lower": said}


def environments(parameters: Parameters) -> Mapping[str, Seen]:
    """As `ssh HOST COMMAND` has it: this process was started so."""
    return {"env_ssh_command": Seen("ssh HOST env", shown(os.environ, parameters["names"]))}


def bash(parameters: Parameters) -> Mapping[str, Seen]:
    """As login shells make it."""
    words = ("/bin/bash", "-lc", " ".join(ENV))
    return {"env_bash_login": session(words, parameters, None, "bash -lc env")}


def zsh(parameters: Parameters) -> Mapping[str, Seen]:
    """As zsh's login shells make it; they do not read /etc/profile.d."""
    program = shutil.which("zsh")
    if program is None:
        return {"env_zsh_login": Seen("zsh -lc env", "no zsh\n")}
    return {"env_zsh_login": session((program, "-lc", " ".join(ENV)), parameters, None, "zsh -lc env")}


def user_service(parameters: Parameters) -> Mapping[str, Seen]:
    """As the user's manager gives it to services."""
    command = "systemd-run --user --wait --pipe env"
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"))
    if not (runtime / "systemd" / "private").exists():
        return {"env_user_service": Seen(command, "no user manager\n")}
    words = ("systemd-run", "--user", "--quiet", "--wait", "--pipe", "--collect", *ENV)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    return {"env_user_service": session(words, parameters, env, command)}


def uv(parameters: Parameters) -> Mapping[str, Seen]:
    """uv as this user finds it: its version, whether it takes its configuration, who could replace it."""
    seen = {
        "uv_version": run(("uv", "--version"), env=None),
        "uvx_version": run(("uvx", "--version"), env=None),
        # Reads /etc/uv/uv.toml like every command, and writes nothing.
        "uv_config": run(("uv", "cache", "dir"), env=None),
    }
    return {**seen, "uv_owner": owners("uv", "uvx")}


def tools(parameters: Parameters) -> Mapping[str, Seen]:
    """Whether the tools for training users answer this user, and who could replace them."""
    lines = []
    for name in TOOLS:
        seen = run((name, "--help"), env=None)
        first = (seen.output or seen.error).strip().partition("\n")[0]
        lines.append(f"{name} {seen.rc} {first}")
    command = f"for tool in {' '.join(TOOLS)}; do $tool --help; done"
    return {"tools_answer": Seen(command, "\n".join(lines) + "\n"), "tools_owner": owners(*TOOLS, below=TOOLS_LIBRARY)}


def owners(*names: str, below: str = "") -> Seen:
    """Owner, mode and path of programs, what they lead to, and every directory above; and of all below a path."""
    command = f"namei -mo $(command -v {' '.join(names)})" + (f"; find -L {below} -printf '%U %m %p'" if below else "")
    found = [where for name in names if (where := shutil.which(name))]
    if len(found) < len(names):
        return Seen(command, "", 127, f"{' or '.join(names)} is not in PATH")
    paths: set[Path] = set()
    for program in map(Path, found):
        paths |= {*program.parents, program.resolve(), *program.resolve().parents}
    if below:
        library = Path(below).resolve()
        paths |= {library, *library.parents, *library.rglob("*")}
    lines = []
    for part in sorted(paths):
        status = part.stat()
        lines.append(f"{status.st_uid} {stat.S_IMODE(status.st_mode):04o} {part}")
    return Seen(command, "\n".join(lines) + "\n")


def launcher(parameters: Parameters) -> Mapping[str, Seen]:
    """What the launcher's helper answers to a request that it must refuse: to end a job that nobody has."""
    command = "spark-run stop 00000000"
    request = {"version": 1, "action": "stop", "id": "00000000"}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(25)
            connection.connect("/run/sparkfleet/launcher.sock")
            connection.send(json.dumps(request).encode())
            answer = connection.recv(8192)
    except OSError as error:
        return {"launcher": Seen(command, f"no answer: {error.strerror or error}\n")}
    return {"launcher": Seen(command, text(answer) + "\n")}


def spark_python(parameters: Parameters) -> Mapping[str, Seen]:
    """Where the Python that `spark-python` starts is installed, and where `current` leads."""
    command = "spark-python -I -c 'import sys; print(sys.prefix)'; readlink -f /opt/sparkfleet/stacks/current"
    code = "import os, sys; print(sys.prefix); print(os.path.realpath('/opt/sparkfleet/stacks/current'))"
    return {"spark_python": run(("spark-python", "-I", "-c", code), env=None, shown=command)}


def spark_vllm_python(parameters: Parameters) -> Mapping[str, Seen]:
    """What `import vllm` would take in `spark-vllm-python`, of which commit. Found, not run: that takes memory."""
    command = "spark-vllm-python -I -c 'import importlib.util; print(importlib.util.find_spec(\"vllm\"))'"
    code = (
        "import importlib.util, json, os, sys; spec = importlib.util.find_spec('vllm'); print(sys.prefix);"
        " print(os.path.realpath('/opt/sparkfleet/vllm-source/current')); print(spec and spec.origin);"
        " print(json.load(open(sys.prefix + '/sparkfleet.json'))['commit'])"
    )
    return {"spark_vllm_python": run(("spark-vllm-python", "-I", "-c", code), env=None, shown=command)}


TOOLS = ("spark-doctor", "spark-estimate", "spark-field-report", "spark-profile")
TOOLS_LIBRARY = "/opt/sparkfleet/lib/tools/current"
LOOKS: dict[str, Looks] = {
    "session": kind,
    "session_score": score,
    "env_ssh_command": environments,
    "env_bash_login": bash,
    "env_zsh_login": zsh,
    "env_user_service": user_service,
    "uv_version": uv,
    "tools_answer": tools,
    "launcher": launcher,
    "spark_python": spark_python,
    "spark_vllm_python": spark_vllm_python,
}
