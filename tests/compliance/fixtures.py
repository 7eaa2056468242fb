"""Evidence files: `evidence/CONTROL/{pass,fail,blank,hostile}.json`, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparkfleet.audit.collect import evidence_of
from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.judge import judge_run
from sparkfleet.audit.model import Control, Evidence, HostRun, Observation, Verdict
from sparkfleet.settings import HostSettings

EVIDENCE = Path(__file__).resolve().parent / "evidence"
CASES = ("pass", "fail", "blank", "hostile")
BY_ID = {control.id: control for control in CONTROLS}


@dataclass(frozen=True)
class Case:
    """One evidence file."""

    control: str
    expect: str
    """The status that today's judge must give."""
    origin: Mapping[str, Any]
    """`boot_ids` by host and the `break`; or `double`: why it was not recorded; or `derived`: from which file."""
    settings: Mapping[str, Any]
    hosts: Mapping[str, Mapping[str, Any]]
    """Host → observation → what the probe answered."""

    def evidence(self) -> dict[str, Evidence]:
        return {name: evidence_of(dict(seen)) for name, seen in self.hosts.items()}

    def verdict(self) -> Verdict:
        """As the audit judges it."""
        control = BY_ID[self.control]
        settings = HostSettings.model_validate(self.settings)
        runs = [HostRun(name, evidence) for name, evidence in self.evidence().items()]
        (verdict,) = judge_run(runs, dict.fromkeys(self.hosts, settings), [control])
        return verdict


def path_of(control: str, case: str) -> Path:
    return EVIDENCE / control / f"{case}.json"


def load(path: Path) -> Case:
    return Case(**json.loads(path.read_text()))


def save(case: str, content: Case) -> None:
    path = path_of(content.control, case)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(content), indent=1, sort_keys=True) + "\n")


class Noted(dict[str, Observation]):
    """Observations that note which of them a judge has read."""

    def __init__(self, observations: Mapping[str, Observation]) -> None:
        super().__init__(observations)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def used(control: Control, run: HostRun, settings: HostSettings) -> dict[str, Any]:
    """The observations of a host that a control needs, as JSON has them."""
    if run.evidence is None:
        raise SystemExit(f"record: {run.name}: {run.problem}")
    noted = Noted(run.evidence.observations)
    judge_run([HostRun(run.name, Evidence(noted))], {run.name: settings}, [control])
    names = sorted((noted.read | set(control.evidence)) & set(noted))
    return {name: asdict(run.evidence.observations[name]) for name in names}
