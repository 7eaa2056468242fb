"""How the controls of the CUDA environment are judged."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.kit import counted, judged, listed, malformed, not_applicable, shortened
from sparkfleet.audit.model import Evidence, Judge, Judgement, NoEvidence
from sparkfleet.settings import HostSettings

SESSIONS = {
    "env_ssh_command": "ssh HOST COMMAND",
    "env_bash_login": "bash -l",
    "env_zsh_login": "zsh -l",
    "env_sudo_login": "sudo -i",
    "env_su": "su -",
    "env_user_service": "a user service",
    "env_system_service": "a system service that opts in",
}
"""Observation → the kind of session it is of."""
ABSENT = {"env_zsh_login": "no zsh", "env_sudo_login": "no sudo", "env_user_service": "no user manager"}
"""What stands for a kind of session that the host does not have."""
SEARCHED = ("PATH", "LD_LIBRARY_PATH")


def variables(evidence: Evidence, name: str) -> dict[str, str]:
    """The variables of a session that are ours to judge. Raises NoEvidence where it is something else."""
    lines = counted(evidence, name, "variables")
    if any("=" not in line for line in lines):
        raise malformed(evidence, name)
    return dict(line.split("=", 1) for line in lines)


def toolkit(evidence: Evidence, settings: HostSettings) -> dict[str, str]:
    """Path → what is there (`directory`, `program`, `absent`). Raises NoEvidence where home was not looked at."""
    words = [line.split(" ", 1) for line in evidence.text("toolkit").splitlines()]
    found = {path: kind for kind, path in (pair for pair in words if len(pair) == 2)}
    if found.get(settings.cuda_env.home) not in ("directory", "absent"):
        raise NoEvidence(f"the probe has not looked for {settings.cuda_env.home}")
    return found


def no_toolkit(evidence: Evidence, settings: HostSettings, wanted: str) -> Judgement | None:
    """The judgement where there is no toolkit: the measure then sets nothing. None where there is one."""
    home = settings.cuda_env.home
    if toolkit(evidence, settings)[home] == "directory":
        return None
    return not_applicable(wanted, f"no CUDA toolkit at {home}")


def values(settings: HostSettings) -> dict[str, str]:
    """What each session must have, from the fleet file."""
    cuda = settings.cuda_env
    return {
        "CUDA_HOME": cuda.home,
        "TORCH_CUDA_ARCH_LIST": cuda.arch_list,
        "TRITON_PTXAS_PATH": cuda.ptxas_path,
        "TRITON_PTXAS_BLACKWELL_PATH": cuda.ptxas_path,
        **cuda.variables,
    }


def differences(found: dict[str, str], settings: HostSettings) -> list[str]:
    """How variables differ from what the fleet file says."""
    cuda = settings.cuda_env
    wrong = [
        f"{name} is {shortened(found[name], 60) if name in found else 'not set'}"
        for name, value in values(settings).items()
        if found.get(name) != value
    ]
    paths = {"PATH": f"{cuda.home}/bin"}
    if cuda.ld_library_path == "export":
        paths["LD_LIBRARY_PATH"] = f"{cuda.home}/lib64"
    return wrong + [
        f"{name} lacks {path}" for name, path in paths.items() if path not in found.get(name, "").split(":")
    ]


def of_session(name: str) -> Judge:
    """The judge of one kind of session."""

    def judge(evidence: Evidence, settings: HostSettings) -> Judgement:
        wanted = f"CUDA_HOME, PATH and the others as the fleet file says, in {SESSIONS[name]}"
        text = evidence.text(name).strip()
        if none := no_toolkit(evidence, settings, wanted):
            return none
        if text == ABSENT.get(name):
            return not_applicable(wanted, f"{text} on this host")
        if name == "env_ssh_command" and evidence.text("session").split()[0] != "ssh":
            return not_applicable(wanted, "the audit ran on the host itself, without a new SSH session")
        wrong = differences(variables(evidence, name), settings)
        return judged(not wrong, wanted, listed(wrong) or f"CUDA_HOME={settings.cuda_env.home} and the others")

    return judge


def from_file(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "/etc/environment gives the fleet file's values to every login, cron job and user manager"
    found = variables(evidence, "environment_file")
    if none := no_toolkit(evidence, settings, wanted):
        return none
    wrong = differences(found, settings)
    return judged(not wrong, wanted, listed(wrong) or "it does")


def no_empty_elements(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no empty element in PATH or LD_LIBRARY_PATH, in no kind of session"
    wrong, looked = [], 0
    for name, kind in SESSIONS.items():
        if evidence.text(name).strip() == ABSENT.get(name):
            continue
        looked += 1
        for variable, value in variables(evidence, name).items():
            if variable in SEARCHED and value and "" in value.split(":"):
                wrong.append(f"{variable} in {kind}: {shortened(value, 60)}")
    return judged(not wrong, wanted, listed(wrong) or f"none in {looked} kinds of sessions")


def ptxas(evidence: Evidence, settings: HostSettings) -> Judgement:
    path = settings.cuda_env.ptxas_path
    wanted = f"a program at {path}"
    found = toolkit(evidence, settings)
    if none := no_toolkit(evidence, settings, wanted):
        return none
    if path not in found:
        raise NoEvidence(f"the probe has not looked for {path}")
    return judged(found[path] == "program", wanted, f"{found[path]} at {path}")


def linker(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = f"ldconfig's cache has the libraries in {settings.cuda_env.home}/lib64"
    said = evidence.text("libraries").strip()
    if said not in ("listed", "not listed", "no libraries there"):
        raise malformed(evidence, "libraries")
    if none := no_toolkit(evidence, settings, wanted):
        return none
    if settings.cuda_env.ld_library_path != "ldconfig":
        way = settings.cuda_env.ld_library_path
        return not_applicable(wanted, f"cuda_env.ld_library_path is {way} in the fleet file")
    if said == "no libraries there":
        return not_applicable(wanted, said)
    return judged(said == "listed", wanted, said)


def release(text: str) -> str:
    """CUDA's release from `nvcc --version`; "" where there is none."""
    match = re.search(r"release (\d+\.\d+),", text)
    return match[1] if match else ""
