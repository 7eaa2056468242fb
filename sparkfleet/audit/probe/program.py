"""The program that goes to hosts, put together from this package's modules. This one stays on the controller."""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from functools import cache
from importlib.resources import files

from sparkfleet.audit.probe.main import loader
from sparkfleet.settings import HostSettings
from sparkfleet.settings.environment import OWNED
from sparkfleet.settings.link_addresses import rails_of

MODULES = (
    "frame",
    "look",
    "environment",
    "as_user",
    "as_root",
    "as_root_boots",
    "as_root_container",
    "as_root_gpu",
    "as_root_host",
    "as_root_packages",
    "as_root_slice",
    "as_root_ssh",
    "as_root_stack",
    "as_root_vllm_source",
    "as_root_watchdog",
    "link",
    "main",
)
SITE_LOOKS: dict[str, dict[str, list[str]]] = {"user": {}, "root": {}}
"""Commands of a site's own controls, by who runs them, and by name."""
JOB_SCORE = 500
"""oom_score_adj of jobs, at least."""
# Serves these modules from SOURCES instead of from a disk, under the names they have here.
# Not of importlib.abc's classes: importing that takes as long as half of the probe's own modules (Python 3.11, 3.12).
BOOTSTRAP = """
import sys
from importlib.machinery import ModuleSpec
class Sources:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=not SOURCES[name]) if name in SOURCES else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        exec(compile(SOURCES[module.__name__], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Sources())
from sparkfleet.audit.probe.main import main
sys.exit(main(source))
"""


@cache
def source() -> bytes:
    """The program, the same for every host, as `main.loader` unpacks it."""
    package = files("sparkfleet.audit.probe")
    sources = {"sparkfleet": "", "sparkfleet.audit": "", "sparkfleet.audit.probe": ""}
    sources |= {f"sparkfleet.audit.probe.{name}": (package / f"{name}.py").read_text("utf-8") for name in MODULES}
    packed = zlib.compress(f"SOURCES = {sources!r}\n{BOOTSTRAP}".encode(), 9)
    return base64.b64encode(packed) + b"\n"


def command() -> str:
    """The command on the host, for any login shell. -I: nothing of the user's or the directory's is imported."""
    return f"/usr/bin/python3 -I -S -B -c {shlex.quote(loader(len(source())))}"


def link_addresses(settings: HostSettings) -> list[str]:
    """The addresses that a host's links are to have, with prefix; none where they are left alone."""
    link = settings.cluster_link
    return [str(rail.address) for rail in rails_of(link, link.host)] if link.state == "present" and link.host else []


def parameters(settings: HostSettings, token: str, *, ssh: bool, seconds: float) -> bytes:
    """The line that tells the program where to look on a host.

    `ssh`: whether it comes there by sshd; `seconds`: after which it ends itself, whatever hangs.
    """
    cuda = settings.cuda_env
    values = {
        "part": "user",
        "token": token,
        "ssh": ssh,
        "seconds": max(10, int(seconds)),
        "home": cuda.home,
        "ptxas": cuda.ptxas_path,
        "names": sorted({*OWNED, *cuda.variables}),
        "units": sorted(settings.ssh.protect),
        "training_group": settings.training_slice.group,
        "job_score": JOB_SCORE,
        "site": SITE_LOOKS,
        "link_addresses": link_addresses(settings),
        "vllm_image": settings.vllm_container.reference if settings.vllm_container.state == "present" else "",
        "gpu_clock": settings.gpu_clock.state == "present",
        "headless": settings.headless.state == "present",
    }
    return json.dumps(values).encode() + b"\n"
