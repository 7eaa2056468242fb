"""Somebody's file that outranks ours is refused by its name, whatever measure and setting it is about.

systemctl is a double: it tells of each unit what a file says, as systemd 257 prints it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sparkfleet.settings import HostSettings
from sparkhost.base import holds, systemd
from sparkhost.base.files import File
from sparkhost.base.holds import Holds, values_of
from sparkhost.base.resource import Context, Refused, Resource, from_json
from sparkhost.ssh.guard import Guarded
from tasks import (
    cluster_link,
    cuda_env,
    gpu_clock,
    hardware_watchdog,
    headless,
    ssh,
    stack,
    swap,
    tools,
    training_slice,
    uv,
    vllm_container,
    vllm_source,
    watchdog,
)
from tasks.lib.wanted import requests

MEASURES = (
    swap,
    cuda_env,
    uv,
    stack,
    tools,
    training_slice,
    vllm_source,
    vllm_container,
    watchdog,
    hardware_watchdog,
    gpu_clock,
    headless,
    cluster_link,
    ssh,
)
EVERYTHING = {
    "gpu_clock": {"state": "present"},
    "headless": {"state": "present"},
    "hardware_watchdog": {"armed": True},
    "ssh": {"protect": {"agent.service": "64MiB"}},
    "training_slice": {"sessions_memory_max": "64GiB", "serving_memory_max": "8GiB", "cpu_weight": 50, "io_weight": 50},
    "watchdog": {"textfile": "/var/lib/node_exporter"},
    "vllm_source": {"state": "present", "commit": "0" * 40},
    "cluster_link": {"state": "present", "host": "a", "hosts": ["a", "b"]},
    "vllm_container": {"state": "present", "model": "/models/x", "digest": f"sha256:{0:064}"},
}
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{root}/calls
[ "$1" = show ] || exit 0
for unit; do :; done
cat "{root}/units/$unit" 2>/dev/null || echo LoadState=not-found
"""
LIST = '#!/bin/sh\nfor file in $(ls {root}/etc/{kind}/*.conf); do echo "# $file"; cat $file; done\n'


def measures_resources(measure: ModuleType) -> list[Resource]:
    """All that a measure asks for with everything switched on, parts of guarded changes included."""
    entries = requests(HostSettings.model_validate(EVERYTHING), [measure])
    found = [from_json(each) for entry in entries for each in entry["resources"]]
    return [part for each in found for part in ([each, *each.parts()] if isinstance(each, Guarded) else [each])]


def owned() -> Iterator[tuple[str, File]]:
    """(measure, file) of systemd's and sysctl's files of all measures."""
    for measure in MEASURES:
        for each in measures_resources(measure):
            if isinstance(each, File) and LOOKED_AT.match(each.path):
                yield measure.NAME if hasattr(measure, "NAME") else measure.__name__.rpartition(".")[2], each


# Not swap's, which reaches every unit of a type: `SwapGuard` looks at each.
LOOKED_AT = re.compile(r"/etc/(systemd/(?!system/swap\.d/)|sysctl\.d/)")
OWNED = list(owned())


class Machine:
    """A host in a directory: our files, PID 1's view of its units, and the kernel's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "units").mkdir()
        self.program("systemctl", SYSTEMCTL)
        self.program("systemd-run", "#!/bin/sh\n")

    def program(self, name: str, text: str, **values: str) -> str:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            text.replace("{root}", str(self.root)).format(**values)
            if values
            else text.replace("{root}", str(self.root))
        )
        path.chmod(0o755)
        return str(path)

    def write(self, path: str, text: str) -> Path:
        there = self.root / path.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        return there

    def unit(self, name: str, ours: Path, *drop_ins: Path, **values: str) -> None:
        own = ours.parent == holds.UNITS
        names = [*([] if own else [ours]), *drop_ins]
        fragment = ours if own else f"/usr/lib/systemd/system/{name}"
        found = {
            "LoadState": "loaded",
            "FragmentPath": fragment,
            "DropInPaths": " ".join(map(str, names)),
            "NeedDaemonReload": "no",
            "ControlGroup": "",
            **values,
        }
        (self.root / "units" / name).write_text("".join(f"{key}={value}\n" for key, value in found.items()))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(holds, "UNITS", tmp_path / "etc/systemd/system")
    monkeypatch.setattr(holds, "RUN", tmp_path / "run")
    monkeypatch.setattr(holds, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(holds, "PROC", tmp_path / "proc")
    monkeypatch.setattr(systemd, "containers_at_risk", list)
    lists = {
        tmp_path / "etc/systemd/system.conf.d": (
            made.program("manager", LIST.replace("{kind}", "systemd/system.conf.d")),
        ),
        tmp_path / "etc/sysctl.d": (made.program("sysctls", LIST.replace("{kind}", "sysctl.d")),),
    }
    monkeypatch.setattr(holds, "LISTS", lists)
    return made


def test_no_measures_file_is_left_out() -> None:
    for measure in MEASURES:
        found = measures_resources(measure)
        looked_at = {each.file for each in found if isinstance(each, Holds)}
        assert looked_at == {each.path for each in found if isinstance(each, File) and LOOKED_AT.match(each.path)}
    assert len(OWNED) > 15


@pytest.mark.parametrize(("measure", "file"), OWNED, ids=lambda value: getattr(value, "path", value))
def test_each_setting_of_each_file_can_be_overridden_by_nobody(machine: Machine, measure: str, file: File) -> None:
    ours = machine.write(file.path, file.content)
    resource = Holds(measure, str(ours))
    kind = ours.parent if "system.conf.d" in file.path or "sysctl.d" in file.path else None
    if kind:
        unit, theirs = "", kind / "zz-site.conf"
    else:
        name = Path(file.path).relative_to("/etc/systemd/system").parts[0].removesuffix(".d")
        unit = name.replace("user-.slice", "user-1001.slice").replace("ssh@.", "ssh@1.").replace("user@.", "user@1001.")
        theirs = machine.root / "etc/systemd/system" / f"{unit}.d" / "zz-site.conf"
        machine.unit(unit, ours)
        theirs.parent.mkdir(parents=True, exist_ok=True)
    assert resource.plan(Context()) == []
    keys = [key for key in values_of(file.content) if key not in holds.ADDED]
    assert keys
    for key in keys:
        theirs.write_text(f"[Any]\n{key} = 4711\n")
        if unit:
            machine.unit(unit, ours, theirs)
        with pytest.raises(Refused) as refused:
            resource.plan(Context())
        said = str(refused.value)
        assert f"{theirs} overrides {ours}: remove that" in said
        assert f"set {measure}.state to unmanaged" in said
        assert key in said
        assert "\n" not in said


@pytest.fixture
def slice_file(machine: Machine) -> Path:
    return machine.write("etc/systemd/system/x.slice", "# managed by sparkfleet\n[Slice]\nMemoryMax=1G\nTasksMax=9\n")


def test_what_says_the_same_or_something_else_is_left_alone(machine: Machine, slice_file: Path) -> None:
    theirs = machine.write(
        "etc/systemd/system/x.slice.d/a.conf", "[Slice]\nTasksMax=9\nCPUQuota=50%\n#MemoryMax=1\n[Unit]\nAfter=y\n"
    )
    machine.unit("x.slice", slice_file, theirs)
    assert Holds("m", str(slice_file)).plan(Context()) == []


def test_what_is_set_until_the_next_boot_is_taken_back(machine: Machine, slice_file: Path) -> None:
    brief = machine.write("run/systemd/system.control/x.slice.d/50-MemoryMax.conf", "[Slice]\nMemoryMax=infinity\n")
    machine.unit("x.slice", slice_file, brief)
    resource = Holds("m", str(slice_file))
    assert [change.what for change in resource.plan(Context())] == ["x.slice", "daemon-reload"]
    resource.apply()
    assert not brief.exists()
    assert "daemon-reload" in (machine.root / "calls").read_text()


def test_what_reaches_every_unit_of_a_type_is_not_ours_to_remove(machine: Machine, slice_file: Path) -> None:
    brief = machine.write("run/systemd/system/slice.d/zzz-container.conf", "[Slice]\nMemoryMax=infinity\n")
    machine.unit("x.slice", slice_file, brief)
    with pytest.raises(Refused, match=r"zzz-container\.conf overrides"):
        Holds("m", str(slice_file)).plan(Context())


def test_another_file_in_the_place_of_ours_is_named(machine: Machine, slice_file: Path) -> None:
    machine.unit("x.slice", slice_file, FragmentPath="/etc/systemd/system.control/x.slice")
    with pytest.raises(Refused, match=r"x\.slice is another one: /etc/systemd/system\.control/x\.slice overrides"):
        Holds("m", str(slice_file)).plan(Context())


def test_unread_files_are_read_first_but_those_of_sshd(machine: Machine, slice_file: Path) -> None:
    machine.unit("x.slice", slice_file, NeedDaemonReload="yes")
    assert [change.what for change in Holds("m", str(slice_file)).plan(Context())] == ["x.slice", "daemon-reload"]
    ours = machine.write("etc/systemd/system/ssh.service.d/oom.conf", "# managed by sparkfleet\nMemoryMin=1\n")
    machine.unit("ssh.service", ours, NeedDaemonReload="yes")
    assert Holds("ssh", str(ours)).plan(Context()) == []


def test_the_kernel_has_what_systemd_holds(machine: Machine) -> None:
    text = "# managed by sparkfleet\n[Service]\nOOMScoreAdjust=-1000\nMemoryMin=1M\nTasksMax=8\n"
    ours = machine.write("etc/systemd/system/x.service", text)
    machine.write("cgroup/x.slice/x.service/memory.min", "0\n")
    machine.write("cgroup/x.slice/x.service/pids.max", "8\n")
    score = machine.write("proc/77/oom_score_adj", "100\n")
    machine.unit("x.service", ours, ControlGroup="/x.slice/x.service", MainPID="77")
    resource = Holds("m", str(ours))
    assert [change.summary for change in resource.plan(Context())] == [
        "have systemd put MemoryMin in force: memory.min is 0",
        "set its main process's oom_score_adj (is 100)",
    ]
    resource.apply()
    assert score.read_text() == "-1000"
    assert re.search("show", (machine.root / "calls").read_text())


def test_a_session_is_not_taken_out_of_the_kernels_reach(machine: Machine) -> None:
    """Where sshd is started for each connection, the hook has put its instance back to 0."""
    text = "# managed by sparkfleet\n[Service]\nOOMScoreAdjust=-1000\n"
    ours = machine.write("etc/systemd/system/ssh@.service.d/oom.conf", text)
    machine.write("cgroup/system.slice/system-ssh.slice/ssh@1-a.service/memory.min", "0\n")
    score = machine.write("proc/77/oom_score_adj", "0\n")
    machine.unit("ssh@1-a.service", ours, MainPID="77", ControlGroup="/system.slice/system-ssh.slice/ssh@1-a.service")
    assert holds.units_of(ours) == ["ssh@1-a.service"]
    assert Holds("ssh", str(ours)).plan(Context()) == []
    brief = machine.write("run/systemd/system.control/ssh@1-a.service.d/50-o.conf", "[Service]\nOOMScoreAdjust=1\n")
    machine.unit("ssh@1-a.service", ours, brief, MainPID="77")
    Holds("ssh", str(ours)).apply()
    assert not brief.exists()
    assert score.read_text() == "0\n"


def test_a_users_own_exception_of_ours_is_none(machine: Machine) -> None:
    """An admin's slice has our file of the same name instead; a user's with somebody's file of that name is refused."""
    text = "# managed by sparkfleet\n[Slice]\n"
    ours = machine.write("etc/systemd/system/user-.slice.d/50-cap.conf", f"{text}MemoryMax=1G\n")
    exception = machine.write("etc/systemd/system/user-1000.slice.d/50-cap.conf", text)
    base = {"LoadState": "loaded", "NeedDaemonReload": "no"}
    machine.unit("user-1000.slice", ours, **base | {"DropInPaths": str(exception)})
    assert Holds("m", str(ours)).plan(Context()) == []
    exception.write_text("[Slice]\nMemoryMax=infinity\n")
    with pytest.raises(
        Refused, match=r"user-1000\.slice does without it: .*user-1000\.slice\.d/50-cap\.conf overrides"
    ):
        Holds("m", str(ours)).plan(Context())
    exception.unlink()
    exception.symlink_to("/dev/null")
    machine.unit("user-1000.slice", ours, **base | {"DropInPaths": ""})
    with pytest.raises(
        Refused, match=r"user-1000\.slice does without it: .*user-1000\.slice\.d/50-cap\.conf overrides"
    ):
        Holds("m", str(ours)).plan(Context())


def test_a_kernels_setting_with_slashes_is_the_same(machine: Machine) -> None:
    ours = machine.write("etc/sysctl.d/60-ours.conf", "# managed by sparkfleet\nkernel.panic = 30\n")
    earlier = machine.write("etc/sysctl.d/10-theirs.conf", "kernel.panic=0\n")
    assert Holds("m", str(ours)).plan(Context()) == []
    later = earlier.rename(earlier.with_name("99-theirs.conf"))
    later.write_text("kernel/panic=0\n")
    with pytest.raises(Refused, match=r"the next boot sets kernel/panic=0: .*99-theirs\.conf overrides"):
        Holds("m", str(ours)).plan(Context())


def test_a_file_that_is_not_there_or_about_to_change_says_nothing(
    machine: Machine, slice_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Callable[[], bool] = (machine.root / "calls").exists
    pending = File(str(slice_file), "other").plan(Context())
    assert Holds("m", str(slice_file)).plan(Context(pending=[*pending])) == []
    slice_file.unlink()
    assert Holds("m", str(slice_file)).plan(Context()) == []
    assert not asked()
