"""Runs of the audit to test its reports with: small ones, realistic ones, and hostile ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from sparkfleet.audit.model import (
    Aspect,
    Control,
    Evidence,
    HostRun,
    Judgement,
    Observation,
    Run,
    Severity,
    Status,
    Verdict,
    WaiverNote,
)
from sparkfleet.settings import HostSettings

HOSTILE = (
    "</script><script>window.pwned=1</script>"
    "<img src=x onerror=window.pwned=2>"
    "\x1b[2J\x1b]0;pwned\x07\u202egnp.exe\u2066\x00\x9b31m\ud800 {{ 7 * 7 }} ]]> &amp; 'q' \"q\""
    "\nsecond line\ttab\r\nthird"
)
"""What a broken or hostile host may answer, and call itself."""


def judge(evidence: Evidence, settings: HostSettings) -> Judgement:
    """A judge that is never asked here."""
    raise NotImplementedError


def control(id: str, severity: Severity = Severity.HIGH, **changes: object) -> Control:
    """A control with an observation `id`."""
    measure = id.split("-")[1].lower()
    made = Control(
        id=id,
        title=f"what {id} asks for holds",
        severity=severity,
        measure=measure if measure != "host" else "",
        aspect=Aspect.RUNNING,
        why="a run that swaps freezes the machine",
        source="proc(5)",
        manual_fix=f"mend {id} by hand",
        evidence=(id,),
        judge=judge,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


SEVERITIES = tuple(Severity)
CONTROLS = (
    control("SPK-SWAP-01", Severity.CRITICAL, title="no swap is in use"),
    control("SPK-SWAP-02", Severity.HIGH, title="no swap comes back at boot", aspect=Aspect.SURVIVES_REBOOT),
    control("SPK-SSH-01", Severity.CRITICAL, title="sshd is never killed for memory"),
    control("SPK-UV-01", Severity.LOW, title="uv is the pinned release"),
    control("SPK-HOST-01", Severity.MEDIUM, title="the clock is synchronised"),
)
OUTPUTS = {
    Status.PASS: ("none", "Filename\tType\tSize\tUsed\tPriority\n"),
    Status.FAIL: ("/swap.img, 16 GiB", "Filename\tType\tSize\tUsed\tPriority\n/swap.img file 16777212 1048 -2\n"),
    Status.ERROR: ("`cat /proc/swaps` printed nothing", ""),
}


def verdict(control: str, host: str, status: Status, **changes: object) -> Verdict:
    """A verdict as a judge would give it."""
    saw = OUTPUTS.get(status, OUTPUTS[Status.FAIL])[0]
    made = Verdict(control, host, status, "no swap", saw, "cat /proc/swaps")
    return replace(made, **changes)  # type: ignore[arg-type]


def run(statuses: Mapping[str, Sequence[Status]], controls: Sequence[Control] = CONTROLS, **changes: object) -> Run:
    """A run in which each host's controls, in order, have these statuses; a host with none is unreachable."""
    hosts, verdicts = [], []
    for name, given in statuses.items():
        if not given:
            verdicts += [verdict(c.id, name, Status.UNREACHABLE, saw="", command="") for c in controls]
            hosts.append(HostRun(name, None, "ssh: connect to host 10.0.0.9 port 22: No route to host", True))
            continue
        verdicts += [verdict(c.id, name, status) for c, status in zip(controls, given, strict=True)]
        seen = {
            c.id: Observation("cat /proc/swaps", OUTPUTS.get(status, OUTPUTS[Status.FAIL])[1])
            for c, status in zip(controls, given, strict=True)
        }
        hosts.append(HostRun(name, Evidence(seen), boot_id="b3a0c2d4-0000-4000-8000-000000000001", seconds=0.42))
    made = Run("20261124T121500Z-3f9c", "2026-11-24T12:15:00Z", "my-lab.yaml", tuple(hosts), tuple(verdicts))
    return replace(made, **changes)  # type: ignore[arg-type]


def small() -> Run:
    """Every status once at least."""
    p, f, w, n, e = Status.PASS, Status.FAIL, Status.WAIVED, Status.NOT_APPLICABLE, Status.ERROR
    made = run({"spark1": (p, p, p, p, n), "spark2": (f, p, w, p, e), "spark10": (p, p, p, f, p), "spark3": ()})
    note = WaiverNote("its sshd is patched next week", "j.doe@example.org", date(2027, 3, 31), "in force")
    verdicts = tuple(replace(v, waiver=note) if v.status is w else v for v in made.verdicts)
    fleet = verdict("SPK-HOST-01", "", Status.FAIL, wanted="one machine-id a host", saw="spark1 and spark2 share one")
    return replace(
        made, verdicts=(*verdicts, fleet), notes=("waivers.yaml:9: waiver of SPK-UV-01 on x*: fits no host",)
    )


def hostile() -> Run:
    """Hostile text in every place that a host or a file can fill."""
    h, c = HOSTILE, control("SPK-SWAP-01", Severity.CRITICAL)
    seen = {c.id: Observation(h, h + "A" * 1_000_000 + h, 0, h)}
    hosts = (HostRun(h, Evidence(seen), h, False, h), HostRun("dead" + h, None, h, True))
    note = WaiverNote(h, h, date(2027, 3, 31), "in force")
    verdicts = (
        Verdict(c.id, h, Status.FAIL, h, h, h, replace(note, state="expired")),
        Verdict(c.id, "dead" + h, Status.UNREACHABLE, h, h, h),
        Verdict("SPK-" + h, h, Status.WAIVED, h, h, h, note),
        Verdict("SPK-HOST-01", "", Status.ERROR, h, h, h),
    )
    return Run("20261124T121500Z-3f9c", h, h, hosts, verdicts, (h,))


HOSTILE_CONTROLS = (
    control("SPK-SWAP-01", Severity.CRITICAL, title=HOSTILE, measure=HOSTILE, manual_fix=HOSTILE, why=HOSTILE),
    control("SPK-HOST-01"),
)


def large(hosts: int = 200, controls: int = 60) -> tuple[Run, tuple[Control, ...]]:
    """A fleet whose hosts fail here and there, each with evidence of its own."""
    groups = ("SWAP", "SSH", "CUDA", "UV", "HOST", "CLOCK")
    asked = tuple(
        control(f"SPK-{groups[i * len(groups) // controls]}-{i + 1:02}", SEVERITIES[i % 4]) for i in range(controls)
    )
    made, verdicts = [], []
    for number in range(1, hosts + 1):
        name = f"spark{number}"
        if number % 50 == 49:
            made.append(HostRun(name, None, "no answer within 20 s", True))
            verdicts += [verdict(c.id, name, Status.UNREACHABLE, saw="", command="") for c in asked]
            continue
        seen = {}
        for i, c in enumerate(asked):
            bad = number % 4 == 0 and (number * 7 + i) % 20 == 0
            status = Status.FAIL if bad else Status.WAIVED if (number + i) % 97 == 0 else Status.PASS
            note = (
                WaiverNote("until the next kernel", "ops", date(2027, 3, 31), "in force")
                if status is Status.WAIVED
                else None
            )
            saw = f"/swap.img, {number} MiB in use" if status is not Status.PASS else "none"
            verdicts.append(Verdict(c.id, name, status, "no swap", saw, f"cat /proc/{i}/swaps", note))
            seen[c.id] = Observation(f"cat /proc/{i}/swaps", f"line of {name} and {c.id}\n" * 12)
        made.append(HostRun(name, Evidence(seen), boot_id=f"{number:08}-0000-4000-8000-000000000001", seconds=0.4))
    return Run("20261124T121500Z-3f9c", "2026-11-24T12:15:00Z", "my-lab.yaml", tuple(made), tuple(verdicts)), asked
