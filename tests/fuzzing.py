"""What the controller reads of others, each parser with answers as they should be and the one way in which it may fail.

For tests/unit/test_fuzzing.py and, with ten thousand inputs and more for each, `python -m tests.bench.fuzz`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sparkfleet import foreign
from sparkfleet.audit import controls, facts, waivers
from sparkfleet.audit.collect import evidence_of, read_document
from sparkfleet.audit.judge import judge_run
from sparkfleet.audit.model import HostRun, Status
from sparkfleet.audit.probe.frame import BadFrame, framed, unframed
from sparkfleet.audit.report import json_file
from sparkfleet.deploy.outcome import State, outcomes
from sparkfleet.deploy.report import as_json, details, summary
from sparkfleet.enrol import hostkey, probe
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.rollout import busy, state
from sparkfleet.settings import FleetError, HostSettings, load_fleet
from tasks.lib.answer import Busy, Malformed, parsed
from tests.unit import audit_runs

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ROOT / "tests" / "compliance" / "evidence"
CHANGE = {"what": "/etc/x", "summary": "rewrite", "diff": "-a\n+b\n", "needs": [{"sha256": "a", "machine": "b"}]}
PART = {"changes": [CHANGE], "warnings": ["w"], "refused": ["r"], "error": None}
LAST = {"measures": {"swap": {"result": "clean"}}, "version": "v", "settings": "s", "ended": "2026-01-01"}
STANDS = {"swap": {"version": "v", "at": "2026-01-01", "result": "changed", "settings": "s"}}
TOKENS = (
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"null", b"true", b"1e999", b"-1", b"NaN", b"[[[[" * 400, b"\n"),
    *(b"\x1b[2J", b"\x1b]0;x\x07", b"\xff", b"\x00", b"\xc2\x9b", b"\xe2\x80\xae", b"\\ud800", b"\\u001b", b"9" * 5000),
    *(b"- ", b"#", b"&a ", b"*a", b"!!python/object:x", b"%", b"\t", b"\r", b"@revoked ", b"|1|", b"=", b"99999999999"),
)


@dataclass(frozen=True)
class Parser:
    """`reads` raises nothing, or `fails`, whatever it is given. `seeds`: inputs as they should be."""

    reads: Callable[[bytes], object]
    seeds: Sequence[bytes]
    fails: tuple[type[Exception], ...] = ()


def text(data: bytes) -> str:
    return data.decode(errors="replace")


def packed(value: Any) -> bytes:
    return json.dumps(value).encode()


def is_plain(value: Any, blocks: Sequence[str] = ()) -> bool:
    """Whether no text of a JSON value acts on a terminal."""
    if isinstance(value, dict):
        return all(
            is_plain(key) and (is_plain_block(each) if key in blocks else is_plain(each, blocks))
            for key, each in value.items()
        )
    if isinstance(value, list):
        return all(is_plain(each, blocks) for each in value)
    return not isinstance(value, str) or value.isprintable()


def is_plain_block(value: Any) -> bool:
    if isinstance(value, str):
        return value.replace("\n", "").replace("\t", "").isprintable()
    return all(map(is_plain_block, value)) if isinstance(value, list) else is_plain(value, ("diff",))


def answer(data: bytes) -> None:
    found = parsed(text(data))
    assert is_plain(found, ("diff",)), found


def step(data: bytes) -> None:
    parsed(text(data), "applied", "notes", "unproved")


def frame(data: bytes) -> None:
    evidence, boot_id, problem = read_document(unframed(data, "t", foreign.loads))
    assert is_plain([boot_id, problem, *evidence.observations])


def notes(data: bytes) -> None:
    """The deploy's record, as the probe brings it along: JSON within an observation's text."""
    document = {"applied": {"command": "c", "output": text(data), "rc": 0, "error": ""}}
    (note,) = facts.notes([HostRun("a", evidence_of(document), "", False)])
    assert "a mistake of ours" not in note, note
    assert note.isprintable(), note


def verdicts(data: bytes) -> None:
    """Every control on evidence: none may pass by accident, or fail by an exception that no judge expects."""
    try:
        evidence, _, problem = read_document(unframed(framed("t", document_of(data)).encode(), "t", foreign.loads))
    except BadFrame:
        return
    found = judge_run([HostRun("a", evidence, problem, False)], {"a": HostSettings()}, controls.CONTROLS)
    assert len(found) == len(controls.CONTROLS)
    assert all(is_plain([one.saw, one.wanted, one.command]) for one in found)
    assert all(isinstance(one.status, Status) for one in found)


def document_of(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = {}
    return {"observations": found, "boot_id": "b", "problem": ""}


def history(data: bytes) -> None:
    """A host's history and plan on the way to the end of a run: journal, states, causes, what is printed."""
    try:
        found = parsed(text(data), "history")
    except (Malformed, Busy):
        return
    told = {"host": "a", "event": "history", "version": "v", "wanted": {"swap": "s"}}
    lines = [json.dumps({**told, "applied": found["history"]["measures"]})]
    for name, part in found["plan"].items():
        said = {key: part[key] for key in ("changes", "refused", "error")}
        lines.append(json.dumps({"host": "a", "event": "plan", "measure": name, **said}))
    seen = outcomes(["a"], [*lines, json.dumps({"host": "a", "event": "planned"})], dry=True)
    assert "a mistake of ours" not in seen[0].reason, seen
    printed = [*details(seen[0], diff=True), *summary(seen), *as_json(seen, ExitCode.CLEAN).splitlines()]
    assert all(line.replace("\t", "").isprintable() for line in printed), printed


def journal(data: bytes) -> None:
    """Lines that were cut or mixed: a run that was killed, a full disk."""
    (one,) = outcomes(["a"], text(data).splitlines(), dry=True)
    assert isinstance(one.state, State)


def in_use(data: bytes) -> None:
    found = busy.read(text(data))
    assert str(found).isprintable()


def host(data: bytes) -> None:
    seen = probe.Seen(probe.values_of(text(data)))
    said = [*seen.in_use(), *seen.traits(), seen.state(), seen.machine(), seen.sudo]
    assert is_plain(said), said
    assert (seen.root, seen.key_present, seen.python) is not None


def offered(data: bytes) -> None:
    found = hostkey.record_of(text(data))
    if found:
        hostkey.fingerprint_of(found[1])


@contextmanager
def as_file(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as stream:
        stream.write(data)
        stream.flush()
        yield Path(stream.name)


def known_hosts(data: bytes) -> None:
    with as_file(data) as path:
        found = hostkey.pins(path, "[127.0.0.1]:22222")
        for pin in found:
            hostkey.fingerprint_of(pin.key)
        hostkey.lines_with(path, hostkey.HostKey("ssh-ed25519", "AAAA"))


def fleet(data: bytes) -> None:
    with as_file(data) as path:
        load_fleet(path)


def accepted(data: bytes) -> None:
    with as_file(data) as path:
        waivers.load(path, ["SPK-SWAP-01"])


def progress(data: bytes) -> None:
    with as_file(data) as path:
        state.load(path, "d", "c")


def kept_run(data: bytes) -> None:
    json_file.loads(text(data))


def kept_head(data: bytes) -> None:
    json_file.head(text(data))


def recorded() -> list[bytes]:
    """Evidence of hosts, as it was recorded for each control."""
    found = []
    for path in sorted(EVIDENCE.glob("*/pass.json"))[::6] + sorted(EVIDENCE.glob("*/hostile.json"))[::12]:
        document = json.loads(path.read_text())
        found.append(packed(document.get("observations", document)))
    return found


ANSWERS = [
    packed({"applied": PART, "plan": {"swap": PART, "uv": PART}, "notes": ["n"], "unproved": True, "history": None}),
    packed({"applied": None, "plan": {"swap": PART}, "history": {"measures": STANDS, "last": LAST}}),
    packed({"busy": "ann has it"}),
]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK"
HOST = (
    "sparkfleet: uid 1000\nsparkfleet: sudo sudo: a password is required\nsparkfleet: python 3.12.3\n"
    "sparkfleet: gpu GB10\n"
    "sparkfleet: login ann tty1\nsparkfleet: terminal ann 12 tmux\nsparkfleet: job ann 12 99 1048576 300 python3 t.py\n"
    "sparkfleet: swap /swapfile 8388608 0\nsparkfleet: uptime 3600\nsparkfleet: load 0.1\n"
)
PARSERS: dict[str, Parser] = {
    "answer to a deploy": Parser(answer, ANSWERS, (Malformed, Busy)),
    "answer to a step of a proof": Parser(step, ANSWERS, (Malformed, Busy)),
    "history, to the end of a run": Parser(history, ANSWERS),
    "journal of a run": Parser(
        journal, [*(packed({"host": "a", "event": e}) + b"\n" for e in ("planned", "executed"))]
    ),
    "the audit's frame": Parser(
        frame,
        [
            framed(
                "t",
                {
                    "observations": {"s": {"command": "c", "output": "o", "rc": 0, "error": ""}},
                    "boot_id": "b",
                    "problem": "",
                },
            ).encode()
        ],
        (BadFrame,),
    ),
    "evidence, by every control": Parser(verdicts, recorded()),
    "the record of deploys in evidence": Parser(notes, [packed({"last": {**LAST, "at": "2026-01-01"}}), b"none\n"]),
    "who uses a host": Parser(in_use, [b"spark-job-1000-0a1b2c3d.service\ntraining.slice\n"]),
    "what a host is": Parser(host, [HOST.encode()]),
    "an offered host key": Parser(offered, [f"HOSTNAME [127.0.0.1]:22 {KEY}\n".encode()]),
    "known_hosts": Parser(
        known_hosts,
        [f"[127.0.0.1]:22222 {KEY}\n@revoked * {KEY}\n".encode(), b"|1|a=|b= " + KEY.encode()],
        (CommandFailed,),
    ),
    "fleet file": Parser(
        fleet,
        [
            b"version: 1\ndefaults:\n  swap: {margin: 1GiB}\ngroups:\n  lab: {}\n"
            b"hosts:\n  a: {address: h, groups: [lab]}\n"
        ],
        (FleetError,),
    ),
    "waivers": Parser(accepted, [(ROOT / "inventories" / "example.waivers.yaml").read_bytes()], (FleetError,)),
    "state of a rollout": Parser(
        progress, [packed({"schema": 1, "fleet_digest": "d", "commit": "c", "hosts": {"a": "done"}})], (CommandFailed,)
    ),
    "kept run": Parser(
        kept_run, [json_file.dumps(audit_runs.small(), audit_runs.CONTROLS).encode()], (json_file.NotAReport,)
    ),
    "head of a kept run": Parser(
        kept_head, [json_file.dumps(audit_runs.small(), audit_runs.CONTROLS).encode()], (json_file.NotAReport,)
    ),
}


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A real answer in which some places were cut, doubled, overwritten, or had something put in."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 24))
        new = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4), st.just(data[at : at + length] * 2)))
        data = data[:at] + new + data[at + length :]
    return data


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


def rewritten(value: Any, draw: st.DrawFn) -> Any:
    """A JSON value in which here and there a part is another value."""
    if draw(st.integers(0, 11)) == 0:
        return draw(st.one_of(SCALARS, st.just([]), st.just({}), st.just([value]), st.just({"": value})))
    if isinstance(value, dict):
        return {key: rewritten(each, draw) for key, each in value.items() if draw(st.integers(0, 19))}
    return [rewritten(each, draw) for each in value] if isinstance(value, list) else value


@st.composite
def restructured(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    return packed(rewritten(json.loads(draw(st.sampled_from(seeds))), draw))


def inputs(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    found = [
        mutated(seeds),
        mutated(seeds),
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda t: t.encode(errors="surrogatepass")),
    ]
    as_json = [seed for seed in seeds if seed[:1] == b"{" and seed[-1:] == b"}" and len(seed) < 3000]
    return st.one_of(*found, *([restructured(as_json)] if as_json else []))


def feed(parser: Parser, data: bytes) -> bool:
    """Whether a parser took an input. Raises what it must not."""
    try:
        parser.reads(data)
    except parser.fails as error:
        said = str(error)
    else:
        return True
    assert "\x1b" not in said
    return False


def fuzz(parser: Parser, examples: int) -> int:
    """Feeds a parser; returns how many inputs it had. Raises what it must not."""
    count = 0

    def once(data: bytes) -> None:
        nonlocal count
        count += 1
        feed(parser, data)

    quick = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    quick(given(inputs(parser.seeds))(once))()
    return count
