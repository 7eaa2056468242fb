"""What the audit says about deploys: by which version, when, and whether it is known at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sparkfleet.audit.facts import notes
from sparkfleet.audit.model import Evidence, HostRun, Observation

LAST: dict[str, Any] = {
    "version": "v0.1.0-3-gabc",
    "at": "2026-11-26T12:00:00Z",
    "ended": "2026-11-26T12:01:00Z",
    "measures": {"swap": {"changes": 1, "result": "changed"}, "uv": {"changes": 0, "result": "clean"}},
}


def host(name: str, output: str | None) -> HostRun:
    seen = {} if output is None else {"applied": Observation("cat /var/lib/sparkfleet/applied.json", output)}
    return HostRun(name, Evidence(seen))


def of(**changed: Any) -> str:
    return json.dumps({"measures": {}, "last": {**LAST, **changed}})


def test_hosts_are_grouped_by_what_is_to_be_said() -> None:
    hosts = [host("a", of()), host("b", "none\n"), host("c", of()), host("d", None), HostRun("e", None, "gone", True)]
    assert notes(hosts) == ("applied by v0.1.0-3-gabc on 2026-11-26: a, c", "no deploy is on record: b")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (of(ended=None), "applied by v0.1.0-3-gabc on 2026-11-26, which did not end"),
        (of(measures={"ssh": {"result": "failed"}}), "applied by v0.1.0-3-gabc on 2026-11-26, without ssh"),
        *(
            (bad, "the record of deploys (/var/lib/sparkfleet/applied.json) cannot be read")
            for bad in ("", "{", "[]", '{"last": null}', '{"last": {"version": 1}}', of(measures=[1]))
        ),
    ],
)
def test_what_a_history_says(output: str, said: str) -> None:
    assert notes([host("a", output)]) == (f"{said}: a",)


def test_a_host_cannot_write_more_than_a_line() -> None:
    (line,) = notes([host("a", of(version="x" * 5000 + "\nspark9: fine"))])
    assert len(line) < 300
    assert "\n" not in line


@pytest.mark.parametrize(
    ("output", "rc", "expected"),
    [
        ("0 held packages\n", 0, ()),
        ("", 127, ()),
        ("2 held packages\nlinux-image-6.14\nnvidia-driver-580\n", 0, ("linux-image-6.14, nvidia-driver-580",)),
    ],
)
def test_held_packages_are_named(output: str, rc: int, expected: tuple[str, ...]) -> None:
    run = HostRun("a", Evidence({"held_packages": Observation("apt-mark showhold", output, rc)}))
    assert notes([run]) == tuple(f"held back from updates: {names}: a" for names in expected)
