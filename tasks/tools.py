"""Commands for people who train on a Spark: what will fit, what does fit, and what is wrong.

Why: a batch that is too large takes the whole host on a Spark, not one job, and most of what goes wrong with CUDA 13 on
aarch64 is a handful of known troubles. `spark-estimate` says beforehand what a run will need, `spark-profile` finds out
by trying without endangering the host, `spark-doctor` names the trouble and the fix (docs/tools.md).
`spark-field-report` tries what is only reported of a Spark, `spark` lists the programs.

They need nothing but Ubuntu's python3, run as the user who calls them, and change nothing on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparkfleet.settings import ToolsSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.installed import NotInstalled
from sparkhost.base.resource import Resource
from sparkhost.ssh.protection import NoProgram
from tasks.lib import ROOT
from tasks.lib.programs import program
from tasks.lib.templates import render

PROGRAM = "tools"
PACKAGES = ("tools",)
COMMANDS = ("spark", "spark-doctor", "spark-estimate", "spark-field-report", "spark-profile")
# What users call is on their PATH, which /opt/sparkfleet is not.
USER_BIN = "/usr/local/bin"
SHARE = "/opt/sparkfleet/share"
COMPLETIONS = "/usr/local/share/bash-completion/completions"
MAN = "/usr/local/share/man/man1"
SHARED = ("recipes", "presets", "open-instruct")


def commands() -> dict[str, str]:
    """Entry point by path."""
    return {f"{USER_BIN}/{name}": f"tools/{name}" for name in COMMANDS}


def shared() -> dict[str, Path]:
    """Recipes and templates by their path on the host. They are taken as they are: braces in them are placeholders."""
    files = ROOT / "files" / "tools"
    found = [path for name in SHARED for path in sorted((files / name).iterdir()) if path.is_file()]
    return {f"{SHARE}/{path.relative_to(files)}": path for path in found}


def by_hand() -> dict[str, str]:
    """What a shell and man(1) look for, by path: nothing else reads it."""
    found = {f"{COMPLETIONS}/{name}": render("tools/completion.bash", name=name) for name in COMMANDS}
    return found | {f"{MAN}/{name}.1": (ROOT / f"files/tools/man/{name}.1").read_text() for name in COMMANDS}


def apply(settings: ToolsSettings) -> Sequence[Resource]:
    """The program, its entry points, and the recipes. Runs that go on keep the release that they were started from."""
    return (
        program(PROGRAM, *PACKAGES),
        *(File(path, render(template), mode=0o755) for path, template in commands().items()),
        *(File(path, text) for path, text in by_hand().items()),
        *(File(path, source.read_text()) if settings.recipes else NoProgram(path) for path, source in shared().items()),
    )


def remove(settings: ToolsSettings) -> Sequence[Resource]:
    """All of it gone. Results of spark-profile are the users', in their own directories."""
    return (
        *(NoFile(path) for path in (*commands(), *by_hand())),
        *(NoProgram(path) for path in shared()),
        NotInstalled(PROGRAM),
    )
