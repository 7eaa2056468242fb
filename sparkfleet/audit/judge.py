"""Evidence and settings make verdicts. No I/O: evidence of any age can be judged again with today's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sparkfleet.audit.model import Control, Evidence, HostRun, Judgement, NoEvidence, Status, Verdict
from sparkfleet.audit.overrides import note
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings import HostSettings
from sparkfleet.settings.problems import escaped

LONGEST = 400
"""Characters of a verdict's texts: a host decides what they hold."""
SAYS = {"unmanaged": "is unmanaged in the fleet file", "absent": "is absent in the fleet file"}


def judge_run(
    hosts: Sequence[HostRun], settings: Mapping[str, HostSettings], controls: Sequence[Control]
) -> tuple[Verdict, ...]:
    """The verdicts of all controls on all hosts, host by host, those about the fleet as a whole at the end.

    `settings`: of each host, by name. A host without settings has left the fleet file: its verdicts are errors.

    Raises:
        CommandFailed: no host or no control (4): an audit of nothing would always be clean.
    """
    if not hosts or not controls:
        raise CommandFailed(f"no {'control' if hosts else 'host'} to audit", ExitCode.BAD_CONFIGURATION)
    single = [control for control in controls if control.fleet_judge is None]
    verdicts = [judge_host(control, host, settings.get(host.name)) for host in hosts for control in single]
    verdicts += [judge_fleet(control, hosts) for control in controls if control.fleet_judge is not None]
    return tuple(verdicts)


def judge_host(control: Control, host: HostRun, settings: HostSettings | None) -> Verdict:
    """How one control stands on one host."""
    evidence = host.evidence
    if evidence is None:
        status = Status.UNREACHABLE if host.unreachable else Status.ERROR
        return verdict(control, host.name, status, control.title, host.problem or "no evidence", "ssh")
    command = command_of(control, evidence)
    if settings is None:
        return verdict(control, host.name, Status.ERROR, control.title, "the host is not in the fleet file", command)
    if reason := unmanaged(control, settings):
        return verdict(control, host.name, Status.NOT_APPLICABLE, control.title, reason, command)
    found = guarded(lambda: control.judge(evidence, settings))
    if isinstance(found, Judgement):
        saw = found.saw + (note(evidence, control.measure) if found.status is Status.FAIL else "")
        return verdict(control, host.name, found.status, found.wanted, saw, command)
    missing = host.problem and any(name not in evidence.observations for name in control.evidence)
    return verdict(control, host.name, Status.ERROR, control.title, host.problem if missing else found, command)


def judge_fleet(control: Control, hosts: Sequence[HostRun]) -> Verdict:
    """How a control about the fleet stands: it fails by what was seen, and passes only if all hosts were seen."""
    judge = control.fleet_judge
    seen = {host.name: host.evidence for host in hosts if host.evidence is not None}
    command = command_of(control, next(iter(seen.values()), Evidence({})))
    if judge is None or not seen:
        return verdict(control, "", Status.ERROR, control.title, "no host was seen", command)
    found = guarded(lambda: judge(seen))
    if not isinstance(found, Judgement):
        return verdict(control, "", Status.ERROR, control.title, found, command)
    unseen = [host.name for host in hosts if host.evidence is None]
    if unseen and found.status is not Status.FAIL:
        return verdict(control, "", Status.ERROR, found.wanted, f"not seen: {', '.join(unseen)}", command)
    return verdict(control, "", found.status, found.wanted, found.saw, command)


def guarded(judge: Callable[[], Judgement]) -> Judgement | str:
    """The judgement, or why there is none: a judge that fails has not seen that all is well."""
    try:
        found = judge()
    except NoEvidence as error:
        return str(error) or "no evidence"
    except Exception as error:
        return f"the judge failed on this evidence: {type(error).__name__}: {error}"
    if found.status not in (Status.PASS, Status.FAIL, Status.NOT_APPLICABLE):
        return f"the judge said {found.status}"
    return found


def unmanaged(control: Control, settings: HostSettings) -> str:
    """Why a control does not apply although it could: the fleet file does not ask for its measure. "": it applies."""
    if not control.measure:
        return ""
    state: str = getattr(settings, control.measure).state
    return f"{control.measure} {SAYS[state]}" if state in SAYS else ""


def command_of(control: Control, evidence: Evidence) -> str:
    """The command that saw it, as a person would type it on the host."""
    for name in control.evidence:
        if name in evidence.observations:
            return evidence.observations[name].command
    return f"(not seen: {control.evidence[0]})"


def verdict(control: Control, host: str, status: Status, wanted: str, saw: str, command: str) -> Verdict:
    return Verdict(control.id, host, status, line(wanted), line(saw), line(command))


def line(text: str) -> str:
    """One line that can be shown anywhere: a host decides what stands in evidence."""
    text = " ".join(text.split())
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    return text if text.isprintable() else escaped(text)
