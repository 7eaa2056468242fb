"""A resource is its steps: a plan shows them, a run does them, and no more (ADR 18)."""

from __future__ import annotations

import contextlib
import grp
import importlib
import json
import os
import pkgutil
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import sparkhost
from sparkhost.base import converge, files, hardware, holds, installed, service, systemd
from sparkhost.base.files import File, Link, NoFile, NoLink, RetiredFile
from sparkhost.base.resource import Check, Context, Failed, Refused, Resource, Step
from sparkhost.cluster_link.guarded import GuardedLink
from sparkhost.cuda_env import environment, ldconfig
from sparkhost.ssh import pam, protection
from sparkhost.ssh.guard import Guarded, GuardStep
from sparkhost.ssh.sshd import SshdReady
from sparkhost.stack import store as stack_store
from sparkhost.stack.resources import NoStack, StackCurrent, StackOld
from sparkhost.swap import swap
from sparkhost.training_slice import caps, docker, slices
from sparkhost.uv import resources as uv
from sparkhost.vllm_container import resources as vllm_container
from sparkhost.watchdog.floors import FloorsFit
from tests.unit import walks
from tests.unit.steps_host import Host

USER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
OURS = "# managed by sparkfleet\n"
IMAGE = "nvcr.io/nvidia/vllm@sha256:1a"
GUARDS = (Guarded, GuardedLink)
ELSEWHERE = {
    "desktop_before": "test_headless.py",
    "guarded_link": "acceptance/test_cluster_link.py",
    "headless": "test_headless.py",
    "link_proof": "acceptance/test_cluster_link.py",
    "timer_driver": "test_hardware_watchdog.py",
    "guard_step": "test_guard_faults.py",
    "guarded": "test_guard_faults.py",
    "no_vllm_source": "test_vllm_source.py",
    "replaced_killer": "test_watchdog_replaced.py",
    "replaced_killer_back": "test_watchdog_replaced.py",
    "stack_release": "test_stack.py",
    "swapoff": "acceptance/test_swap.py",
    "training_people": "test_people.py",
    "uv_binary": "acceptance/test_uv.py",
    "vllm_source_account": "test_vllm_source.py",
    "vllm_source_build": "test_vllm_source.py",
    "vllm_source_old": "test_vllm_source.py",
}
"""Kinds that need more than a small host in a directory, and where they are planned, run, and looked at again."""
SCENES: dict[str, Callable[[Host], Resource]] = {}

Scene = Callable[[Host], Resource]


def scene(make: Scene) -> Scene:
    SCENES[make.__name__] = make
    return make


def classes() -> dict[str, type[Resource]]:
    """Every class of resources, by its kind."""
    for module in pkgutil.walk_packages(sparkhost.__path__, "sparkhost."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # what runs in a stack alone needs its packages
                importlib.import_module(module.name)
    return {kind: c for kind, c in Resource.KINDS.items() if c.__module__.startswith("sparkhost.")}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    etc, var, run, cgroups = (tmp_path / name for name in ("etc", "var", "run", "cgroup"))
    places: dict[object, dict[str, object]] = {
        docker: {
            "UNIT_DIRECTORY": str(etc / "units"),
            "DAEMON_JSON": etc / "docker/daemon.json",
            "RECORD": var / "docker.json",
        },
        environment: {"ENVIRONMENT": etc / "environment", "OUTDATED": run / "outdated", "BOOTED": tmp_path},
        files: {"BACKUPS": var / "backup"},
        hardware: {"SYSCTL": tmp_path / "sysctl", "RECORD": var / "sysctl.json"},
        holds: {"UNITS": etc / "units", "RUN": run, "CGROUPS": cgroups, "PROC": tmp_path / "proc"},
        installed: {"LIBRARY": tmp_path / "opt/lib"},
        ldconfig: {"CACHE": etc / "ld.so.cache"},
        pam: {"STACKS": etc / "pam.d", "COMMON": etc / "pam.d/common-session", "STATE": var / "pam"},
        protection: {"CGROUPS": cgroups, "PROC": tmp_path / "proc"},
        service: {"UNIT_DIRECTORY": str(etc / "units")},
        slices: {"CGROUPS": cgroups, "UNITS": etc / "units"},
        stack_store: {"STORE": tmp_path / "opt/stacks", "SMOKE": var / "smoke"},
        swap: {"FSTAB": etc / "fstab", "TRIAL": run / "fstab", "TURNED_OFF": var / "swaps"},
        systemd: {"CONTROL": (run / "control", etc / "control"), "CGROUPS": cgroups},
        uv: {"STORE": tmp_path / "opt/uv"},
        vllm_container: {"RECORD": var / "images.json"},
    }
    for module, values in places.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    run.mkdir()
    var.mkdir()
    (tmp_path / "opt/lib").mkdir(parents=True)
    protection.accepts.cache_clear()
    protection.Protection.told.clear()
    return made


def ours(path: Path, text: str = OURS) -> File:
    return File(str(path), text, 0o644, USER, GROUP)


@scene
def file(host: Host) -> Resource:
    return ours(host.write("etc/x.conf", "the site's\n"))


@scene
def no_file(host: Host) -> Resource:
    return NoFile(str(host.write("etc/units/x.service.d/x.conf", OURS)))


@scene
def retired_file(host: Host) -> Resource:
    return RetiredFile(str(host.write("etc/old.conf", OURS)))


@scene
def file_with(host: Host) -> Resource:
    path = host.root / "etc/new/x.conf"
    return environment.FileWith(str(path), OURS, 0o600, USER, GROUP, needs=str(host.root))


@scene
def per_connection_file(host: Host) -> Resource:
    host.unit("ssh.socket", Accept="yes")
    return protection.PerConnectionFile(str(host.root / "etc/x.conf"), OURS, 0o644, USER, GROUP)


@scene
def checked_file(host: Host) -> Resource:
    program = str(host.write("check", "#!/bin/sh\n"))
    Path(program).chmod(0o755)
    return service.CheckedFile(str(host.root / "x"), OURS, 0o644, USER, GROUP, check=(program,))


@scene
def cap_file(host: Host) -> Resource:
    return slices.CapFile(str(host.root / "x"), OURS, 0o644, USER, GROUP, slices="x.slice", memory_max=9)


@scene
def no_program(host: Host) -> Resource:
    return protection.NoProgram(str(host.write("opt/sparkfleet/lib/program", OURS)))


@scene
def link(host: Host) -> Resource:
    return Link(str(host.write("opt/tool", "another tool")), "1/tool")


@scene
def no_link(host: Host) -> Resource:
    (host.root / "tool").symlink_to("/opt/ours")
    return NoLink(str(host.root / "tool"), "/opt/")


@scene
def no_tree(host: Host) -> Resource:
    return service.NoTree(str(host.write("var/service/state").parent))


@scene
def environment_block(host: Host) -> Resource:
    host.write("etc/environment", "PATH=/bin\n")
    host.unit("user@1000.service")
    return environment.EnvironmentBlock("cuda", str(host.root), {"CUDA_HOME": "/cuda"}, {"PATH": "/cuda/bin"})


@scene
def environment_file(host: Host) -> Resource:
    values = {"CUDA_HOME": "/cuda"}
    return environment.EnvironmentFile(str(host.write("x.env", OURS)), OURS, "cuda", "/no", values, {})


@scene
def user_managers(host: Host) -> Resource:
    host.write("run/outdated")
    host.unit("user@1000.service")
    return environment.UserManagers()


@scene
def library_path(host: Host) -> Resource:
    host.tell(cache=str(host.write("etc/ld.so.cache")))
    conf = host.write("etc/ld.so.conf.d/x.conf", f"{OURS}/gone\n")
    return ldconfig.LibraryPath("/gone", str(conf), OURS, wanted=False)


@scene
def pam_profile(host: Host) -> Resource:
    host.tell(stack=str(host.write("etc/pam.d/common-session", "session required pam_unix.so\n")))
    host.write("etc/pam.d/sshd", "@include common-session\n")
    return pam.PamProfile(str(host.root / "profile"), OURS, "session optional hook", "sshd")


@scene
def no_pam_profile(host: Host) -> Resource:
    host.tell(stack=str(host.write("etc/pam.d/common-session", "session optional hook\n")))
    return pam.NoPamProfile(str(host.write("profile", OURS)), "session optional hook")


@scene
def service_(host: Host) -> Resource:
    host.unit("x.service", UnitFileState="disabled")
    return service.Service("x.service", [str(host.write("etc/x.conf"))])


@scene
def no_service(host: Host) -> Resource:
    host.unit("x.service")
    return service.NoService("x.service")


@scene
def daemon_reload(host: Host) -> Resource:
    return systemd.DaemonReload([str(host.write("etc/units/x.service"))])


@scene
def holds_(host: Host) -> Resource:
    path = host.write("etc/units/x.slice", f"{OURS}[Slice]\nMemoryMax=4096\nTasksMax=9\n")
    brief = host.write("run/control/x.slice.d/50-MemoryMax.conf", "[Slice]\nMemoryMax=1\n")
    cap = host.write("cgroup/x.slice/memory.max", "1\n")
    host.unit("x.slice", FragmentPath=str(path), DropInPaths=str(brief), ControlGroup="/x.slice", MainPID="0")
    host.tell(kernel={str(cap): "4096\n"})
    return holds.Holds("m", str(path))


@scene
def protection_(host: Host) -> Resource:
    drop_in = host.write("etc/x.conf", "MemoryMin=4096\n")
    host.write("cgroup/cgroup.controllers")
    least = host.write("cgroup/x.service/memory.min", "0\n")
    host.write("proc/77/oom_score_adj", "0\n")
    values = {"OOMScoreAdjust": "-1000", "MemoryMin": "4096", "ControlGroup": "/x.service", "MainPID": "77"}
    host.unit("x.service", DropInPaths=str(drop_in), **values)
    host.tell(kernel={str(least): "4096\n"})
    return protection.Protection("x.service", str(drop_in), 4096, -1000)


@scene
def no_protection(host: Host) -> Resource:
    host.write("proc/77/oom_score_adj", "-1000\n")
    host.unit("x.service", OOMScoreAdjust="0", MainPID="77")
    return protection.NoProtection("x.service", "/gone.conf")


@scene
def cap_in_force(host: Host) -> Resource:
    drop_in = host.write("etc/50-cap.conf", OURS)
    host.write("run/control/user-1.slice.d/50-MemoryMax.conf")
    for uid in (1, 2):
        host.write(f"cgroup/user-{uid}.slice/memory.max", "max\n")
        host.unit(f"user-{uid}.slice", MemoryMax="8192", DropInPaths=str(drop_in))
    host.tell(kernel={str(host.root / f"cgroup/user-{uid}.slice/memory.max"): "8192\n" for uid in (1, 2)})
    return caps.CapInForce("user-*.slice", 8192, str(drop_in))


@scene
def cap_exceptions(host: Host) -> Resource:
    host.write("etc/units/user-999999.slice.d/n.conf", OURS)
    return slices.Exceptions("n.conf", OURS, [], [], "no-such-group", wanted=False)


@scene
def fstab_swap(host: Host) -> Resource:
    host.write("etc/fstab", "proc /proc proc defaults 0 0\n/swap.img none swap sw 0 0\n")
    return swap.FstabSwap("off")


@scene
def swap_on(host: Host) -> Resource:
    host.write("var/swaps", "/swap.img\n")
    host.unit("x.swap", FragmentPath="/run/x.swap")
    return swap.SwapOn()


@scene
def hardware_watchdog(host: Host) -> Resource:
    host.tell(timer=60_000_000)
    return hardware.HardwareWatchdog(0)


@scene
def sysctl(host: Host) -> Resource:
    host.write("sysctl/kernel/panic", "0\n")
    return hardware.Sysctl("kernel.panic", "30")


@scene
def sysctl_before(host: Host) -> Resource:
    hardware.Sysctl("kernel.panic", str(host.write("sysctl/kernel/panic", "0\n") and 30)).apply()
    return hardware.SysctlBefore("kernel.panic")


@scene
def installed_(host: Host) -> Resource:
    for at, digest in enumerate(("aa", "bb", "cc")):
        os.utime(host.write(f"opt/lib/tool/{digest}/x").parent, (at, at))
    return installed.Installed("tool", "dd", {"sparkhost/__init__.py": ""})


@scene
def not_installed(host: Host) -> Resource:
    host.write("opt/lib/tool/aa/x")
    return installed.NotInstalled("tool")


@scene
def uv_config(host: Host) -> Resource:
    host.write("opt/uv/1.0/uv", "#!/bin/sh\n").chmod(0o755)
    return uv.UvConfig(str(host.root / "uv.toml"), OURS, 0o644, USER, GROUP, version="1.0")


@scene
def no_uv(host: Host) -> Resource:
    host.write("opt/uv/1.0/uv")
    return uv.NoUv()


@scene
def docker_parent(host: Host) -> Resource:
    host.unit("docker.service", ExecStart="dockerd")
    host.write("etc/docker/daemon.json", '{"debug": true}')
    host.write("etc/units/x.slice")
    return docker.DockerParent("x.slice")


@scene
def no_docker_parent(host: Host) -> Resource:
    host.unit("docker.service", ExecStart="dockerd")
    host.write("etc/docker/daemon.json", '{"cgroup-parent": "x.slice", "live-restore": true}')
    host.write("var/docker.json", '{"cgroup-parent": null, "live-restore": true}')
    return docker.NoDockerParent("x.slice")


@scene
def container_image(host: Host) -> Resource:
    host.unit("docker.service")
    return vllm_container.ContainerImage(IMAGE, 0)


@scene
def old_images(host: Host) -> Resource:
    host.unit("docker.service")
    host.tell(images=[IMAGE, "older"])
    host.write("var/images.json", json.dumps({"images": [IMAGE, "older"]}))
    return vllm_container.OldImages(IMAGE)


@scene
def no_images(host: Host) -> Resource:
    old_images(host)
    return vllm_container.NoImages()


def stack(host: Host, release: str) -> None:
    host.write(f"opt/stacks/{release}/bin/python")
    stack_store.note(stack_store.home(release), stack_store.Manifest(release, "", {}, "", "", {}))


@scene
def stack_current(host: Host) -> Resource:
    stack(host, "new")
    return StackCurrent("p", {}, "new")


@scene
def stack_old(host: Host) -> Resource:
    stack(host, "new")
    stack(host, "old")
    host.write("opt/stacks/.half.new/x")
    (host.root / "opt/stacks/current").symlink_to("new")
    return StackOld("p", {}, "new", 1)


@scene
def no_stack(host: Host) -> Resource:
    stack(host, "old")
    host.write("var/smoke/old.json")
    return NoStack()


ALL = {name.removesuffix("_"): make for name, make in SCENES.items()}


def test_every_class_that_differs_and_mends_is_looked_at() -> None:
    """A new one without a scene fails here."""
    own = {kind for kind, c in classes().items() if "steps" in vars(c) or "write" in vars(c)}
    checks = {kind for kind, c in classes().items() if issubclass(c, Check)}
    assert own - checks - {*ALL, *ELSEWHERE} == set()
    assert not {*ALL} & {*ELSEWHERE}


def test_no_class_has_another_way_than_its_steps() -> None:
    """What a run does is the list that a plan shows: no class may do it in its own way.

    The guards alone surround their steps, with the way back; they do the same ones.
    """
    ways = {"plan", "apply", "carry_out", "hold"}
    found = {c: ways & {*vars(c)} for c in classes().values()}
    assert {c: own for c, own in found.items() if own} == {c: {"carry_out", "hold"} for c in GUARDS}
    for check in (c for c in classes().values() if issubclass(c, Check)):
        assert "steps" not in vars(check), "a check has no step"
    with pytest.raises(TypeError, match="is its steps"):
        type("Own", (File,), {"kind": "test_own", "apply": lambda self: None})
    Resource.KINDS.pop("test_own", None)


@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_run_does_what_a_plan_shows(kind: str, host: Host) -> None:
    resource = ALL[kind](host)
    assert resource.kind == kind
    before = host.all()
    planned = converge.plan_measure([resource], Context())
    assert planned["changes"], "a scene in which something differs"
    assert host.all() == before, "a plan changes nothing"
    protection.Protection.told.clear()  # one request plans, another one applies
    done = converge.apply_measure([resource])
    assert (done["error"], done["refused"]) == (None, [])
    assert done["changes"] == planned["changes"]
    after = host.all()
    assert after != before
    again = converge.apply_measure([resource])
    assert (again["changes"], again["error"], again["refused"]) == ([], None, [])
    assert [step for step in resource.steps(Context()) if step.says] == []
    assert host.all() == after, "a second run changes nothing"


@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_step_that_is_not_done_changes_nothing(kind: str, host: Host) -> None:
    """All of a change is in the acts: a run whose acts are left out leaves the host as it was."""
    resource = ALL[kind](host)
    before = host.all()
    context = Context()
    steps = [Step(step.what, step.says, lambda: None) for step in resource.steps(context)]
    resource.carry_out(steps, context.troubles)
    assert host.all() == before


def test_a_check_only_looks(host: Host) -> None:
    host.write("proc/self/oom_score_adj", "0\n")
    before = host.all()
    checks: list[Check] = [
        environment.EnvironmentOverrides([], str(host.root), {"PATH": "/x"}),
        protection.KillableSession(["/x"]),
        slices.SliceFits(1, 1, "x.slice"),
        slices.NoJobs("x.slice"),
        swap.SwapGuard("/x", "/y"),
        vllm_container.ContainerHost("/x"),
        FloorsFit(1),
        SshdReady(hook=True),
    ]
    for check in checks:
        with contextlib.suppress(Refused, Failed):
            assert list(check.steps(Context())) == []
    assert host.all() == before


def test_the_watch_sees_a_walk_that_writes(tmp_path: Path) -> None:
    """A class that changes something beside its steps: its own way of writing is found by the watch over all tests."""

    @dataclass(frozen=True)
    class Sly(File):
        kind: ClassVar[str] = "test_sly"

    del Resource.KINDS["test_sly"]
    source = "def steps(self, context):\n    open(self.path + '.beside', 'w').close()\n    return ()\n"
    space: dict[str, Callable[[Resource, Context], tuple[Step, ...]]] = {}
    exec(compile(source, "sparkhost/sly.py", "exec"), space)
    space["steps"](Sly(str(tmp_path / "x"), ""), Context())
    assert [line.startswith("open ") for line in walks.noted] == [True]
    walks.noted.clear()


def test_a_step_of_the_proof_is_the_guards(tmp_path: Path) -> None:
    """It is a step itself: of a change that is not armed there is none to take back."""
    assert list(GuardStep("t", "take_back", []).steps(Context())) == []
