"""The CUDA environment: the same values, and safe search paths, in every kind of session."""

from __future__ import annotations

from sparkfleet.audit.controls import cuda_judges as judges
from sparkfleet.audit.model import Aspect, Control, Severity

FIX = "put CUDA_HOME, TORCH_CUDA_ARCH_LIST, TRITON_PTXAS_PATH, PATH and LD_LIBRARY_PATH into "


def of_session(number: int, name: str, severity: Severity, why: str, fix: str) -> Control:
    """The control of one kind of session."""
    return Control(
        id=f"SPK-CUDA-{number:02}",
        title=f"CUDA's environment is right in {judges.SESSIONS[name]}",
        severity=severity,
        measure="cuda_env",
        aspect=Aspect.RUNNING,
        why=why,
        source="docs/facts.md, 8 and 9",
        manual_fix=FIX + fix,
        evidence=(name, "toolkit", *(("session",) if name == "env_ssh_command" else ())),
        judge=judges.of_session(name),
    )


CONTROLS = (
    of_session(
        1,
        "env_ssh_command",
        Severity.HIGH,
        "Launchers start training by `ssh HOST COMMAND`, which reads neither ~/.bashrc nor profile.d.",
        "/etc/environment",
    ),
    of_session(
        2,
        "env_bash_login",
        Severity.HIGH,
        "It is where people build extensions: for the wrong architecture they compile, and fail when they run.",
        "a script in /etc/profile.d (/etc/profile resets PATH)",
    ),
    of_session(
        3,
        "env_zsh_login",
        Severity.MEDIUM,
        "zsh does not read /etc/profile.d; its users get what PAM gives.",
        "/etc/environment",
    ),
    of_session(
        4,
        "env_sudo_login",
        Severity.MEDIUM,
        "sudo drops the caller's environment; what root builds is built without it.",
        "a script in /etc/profile.d",
    ),
    of_session(
        5,
        "env_su",
        Severity.MEDIUM,
        "su, the console and cron get their environment from PAM alone.",
        "/etc/environment",
    ),
    of_session(
        6,
        "env_user_service",
        Severity.MEDIUM,
        "User managers read /etc/environment once, when they start.",
        "/etc/environment, then: systemctl --user daemon-reload",
    ),
    of_session(
        7,
        "env_system_service",
        Severity.MEDIUM,
        "Services get no login's environment; those that ask have it from a file.",
        "/etc/sparkfleet/cuda.env",
    ),
    Control(
        id="SPK-CUDA-08",
        title="No search path leads to the current directory",
        severity=Severity.HIGH,
        measure="cuda_env",
        aspect=Aspect.RUNNING,
        why="An empty element means the current directory: a library planted there is loaded by whoever works in it.",
        source="docs/facts.md, 7; ld.so(8)",
        manual_fix='write "/dir${NAME:+:$NAME}" instead of "/dir:$NAME" where the variable is set',
        evidence=tuple(judges.SESSIONS),
        judge=judges.no_empty_elements,
    ),
    Control(
        id="SPK-CUDA-09",
        title="Logins of the next boot get CUDA's environment",
        severity=Severity.MEDIUM,
        measure="cuda_env",
        aspect=Aspect.SURVIVES_REBOOT,
        why="User managers and servers of tmux keep what they were started with: today's values hide a lost file.",
        source="docs/facts.md, 9; pam_env(8)",
        manual_fix=FIX + "/etc/environment",
        evidence=("environment_file", "toolkit"),
        judge=judges.from_file,
    ),
    Control(
        id="SPK-CUDA-10",
        title="Triton's ptxas is there",
        severity=Severity.HIGH,
        measure="cuda_env",
        aspect=Aspect.CONFIGURED,
        why="Triton's own ptxas may not know sm_121a: every kernel that it compiles then fails.",
        source="docs/facts.md, 8",
        manual_fix="install the toolkit's cuda-nvcc package, or set cuda_env.ptxas in the fleet file",
        evidence=("toolkit",),
        judge=judges.ptxas,
    ),
    Control(
        id="SPK-CUDA-11",
        title="The dynamic linker knows the toolkit's libraries",
        severity=Severity.HIGH,
        measure="cuda_env",
        aspect=Aspect.CONFIGURED,
        why="With ld_library_path: ldconfig nothing else leads to them.",
        source="docs/adr/0003; ldconfig(8)",
        manual_fix="list the directory in /etc/ld.so.conf.d and run ldconfig",
        evidence=("libraries", "toolkit"),
        judge=judges.linker,
    ),
)
