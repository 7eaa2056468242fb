"""The memory watchdog: ends the right unit of work before the host freezes, and tells its owner why.

Why: CPU and GPU of a DGX Spark share one memory, and a host without any left stops answering until somebody pulls the
plug. Limits of cgroups do not see CUDA memory (docs/facts.md), and the kernel's OOM killer comes when the host is lost.
So a service looks at MemAvailable, and ends the unit of work that took what is missing, GPU memory included, while
there is still room for everybody else to go on (ADR 8 and 14, docs/watchdog.md).

Watchdog and GPU sampler are in a slice of their own beside system.slice: the only ancestor that must grant their
memory, and one that processor time goes to first when every core is busy. The observer, which warns of what the
watchdog must not act on and records what was so each second, is a service like any other: the kernel may end it.
"""

from __future__ import annotations

from collections.abc import Sequence

import tomli_w

from sparkfleet.settings import HostSize, Share, WatchdogSettings
from sparkhost.base.files import File, NoFile
from sparkhost.base.installed import NotInstalled
from sparkhost.base.resource import Resource
from sparkhost.base.service import CheckedFile, NoService, NoTree, Service
from sparkhost.base.systemd import UNIT_DIRECTORY
from sparkhost.ssh.protection import NoProgram
from sparkhost.watchdog.floors import FloorsFit
from sparkhost.watchdog.replaced import Replaced, ReplacedBack
from tasks.lib.programs import program
from tasks.lib.sizes import on_host, rule
from tasks.lib.templates import render

PROGRAM = "watchdog"
BIN = "/opt/sparkfleet/bin"
CONFIG = "/etc/sparkfleet/watchdog.toml"
PROFILE = "/etc/profile.d/zz-sparkfleet-why.sh"
WATCHDOG, SAMPLER, SLICE = "sparkfleet-watchdog.service", "sparkfleet-gpu-sampler.service", "sparkfleet.slice"
OBSERVER, EARLYOOM = "sparkfleet-observer.service", "earlyoom.service"
# All of the watchdog's memory is locked, 17 MiB of it; its teller has about as much.
MIB = 2**20
MEMORY_MIN = 48 * MIB
# What users call is on their PATH, which /opt/sparkfleet is not.
COMMANDS = ("spark-watchdog", "spark-why")
USER_BIN = "/usr/local/bin"
THAW = f"{BIN}/sparkfleet-thaw"
STATE, RUN = "/var/lib/sparkfleet/watchdog", "/run/sparkfleet/watchdog"
OBSERVED, RECORDED = "/run/sparkfleet/observer", "/var/lib/sparkfleet/observer"


def size(value: HostSize) -> str:
    return f"{on_host(value, MIB)}MiB" if isinstance(value, Share) else str(value)


def config(settings: WatchdogSettings) -> str:
    """The configuration as TOML, every key set: what is in force can be read on the host."""
    term, kill = settings.floors
    values = {
        "term_below": size(term),
        "kill_below": size(kill),
        "far": float(settings.far),
        "near": float(settings.near),
        "fastest_fill": size(settings.fastest_fill),
        "grace": float(settings.grace),
        "recovery_wait": float(settings.recovery_wait),
        "smallest_victim": size(settings.smallest_victim),
        "system_unit_above": size(settings.system_unit_above),
        "protect": list(settings.protect),
        "prefer": list(settings.prefer),
        "gpu_memory": settings.gpu_memory,
        "gpu_stale_after": 5 * float(settings.gpu_every),
        "over_promise": settings.over_promise,
        "brake": settings.brake,
        "brake_at_most": float(settings.brake_at_most),
        "never_frozen": list(settings.never_frozen),
        "drop_page_cache": settings.drop_page_cache,
        "textfile": settings.textfile or "",
    }
    return render("watchdog/watchdog.toml.header", term=rule(term), kill=rule(kill)) + tomli_w.dumps(values)


def unit(name: str) -> str:
    return f"{UNIT_DIRECTORY}/{name}"


def apply(settings: WatchdogSettings) -> Sequence[Resource]:
    """The programs, the configuration once they accept it, the units, and both services running with all that."""
    installed = program(PROGRAM, "watchdog", "sampler", "observer")
    watchdog = File(
        unit(WATCHDOG),
        render(
            f"watchdog/{WATCHDOG}",
            program=f"{USER_BIN}/spark-watchdog",
            thaw=THAW,
            dry_run=settings.dry_run,
            memory_min=MEMORY_MIN,
            textfile=settings.textfile,
            drop_page_cache=settings.drop_page_cache,
        ),
    )
    sampler = File(
        unit(SAMPLER),
        render(f"watchdog/{SAMPLER}", program=f"{BIN}/sparkfleet-gpu-sampler", every=float(settings.gpu_every)),
    )
    commands = [File(f"{USER_BIN}/{name}", render(f"watchdog/{name}"), mode=0o755) for name in COMMANDS]
    thaw = File(THAW, render("watchdog/sparkfleet-thaw"), mode=0o755)
    sampler_command = File(f"{BIN}/sparkfleet-gpu-sampler", render("watchdog/sparkfleet-gpu-sampler"), mode=0o755)
    observer = File(unit(OBSERVER), render(f"watchdog/{OBSERVER}", program=f"{BIN}/sparkfleet-observer"))
    observer_command = File(f"{BIN}/sparkfleet-observer", render("watchdog/sparkfleet-observer"), mode=0o755)
    check = (f"{USER_BIN}/spark-watchdog", "check", "-")
    term, kill = map(on_host, settings.floors)
    link = str(installed.home() / "current")
    return (
        FloorsFit(term, kill, dry_run=settings.dry_run),
        installed,
        *commands,
        sampler_command,
        thaw,
        observer_command,
        CheckedFile(CONFIG, config(settings), check=check, program=str(installed.home())),
        File(unit(SLICE), render(f"watchdog/{SLICE}", memory_min=MEMORY_MIN)),
        watchdog,
        sampler,
        observer,
        File(PROFILE, render("watchdog/profile.sh", why=f"{USER_BIN}/spark-why")),
        Service(WATCHDOG, [link, watchdog.path, unit(SLICE), commands[0].path], reload_for=(CONFIG,), only_with=CONFIG),
        Service(SAMPLER, [link, sampler.path, sampler_command.path], only_with=CONFIG),
        Service(OBSERVER, [link, observer.path, observer_command.path], only_with=CONFIG),
        Replaced(EARLYOOM, only_with=CONFIG) if settings.replace_earlyoom else ReplacedBack(EARLYOOM),
    )


def remove(settings: WatchdogSettings) -> Sequence[Resource]:
    """The services stopped first, then all files. Post-mortems stay: they are the users'."""
    files = [PROFILE, *map(unit, (WATCHDOG, SAMPLER, OBSERVER, SLICE)), CONFIG, f"{STATE}/accepted.toml"]
    return (
        ReplacedBack(EARLYOOM),
        NoService(WATCHDOG),
        NoService(SAMPLER),
        NoService(OBSERVER),
        *map(NoFile, files),
        NoTree(f"{STATE}/notices"),
        NoTree(RUN),
        NoTree(OBSERVED),
        NoTree(RECORDED),
        *(NoFile(f"{USER_BIN}/{name}") for name in COMMANDS),
        NoProgram(f"{BIN}/sparkfleet-gpu-sampler"),
        NoProgram(THAW),
        NoProgram(f"{BIN}/sparkfleet-observer"),
        NotInstalled(PROGRAM),
    )
