"""Whatever is sent to the root helper: only what the interface has comes out, never another user."""

from __future__ import annotations

import json
import string
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkhost.base.units import LEAST_MEMORY
from sparkhost.launcher.client import start_message
from sparkhost.launcher.config import Config
from sparkhost.launcher.request import LONGEST, BadRequest, DropCache, Leave, Start, Stop, encode, parse
from sparkhost.launcher.unit import END, STUB, TooLarge, properties, unit_name

FIELDS = ("memory", "time", "name", "host_ipc", "wait", "ticket")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
HOSTILE = [
    "\0",
    "\n",
    "a\nUser=0",
    "--uid=0",
    "-p",
    "%n",
    "${HOME}",
    "../x",
    "/etc/passwd",
    "é",
    "a b",
    "",
    "x" * 49,
    ".",
]
FIXED = {name for name, _, _ in properties(Start(), Config(), 1000, "00000000")}
OPTIONAL = {"RuntimeMaxUSec", "PrivateIPC", "TemporaryFileSystem"}

IDS = st.from_regex(r"[0-9a-f]{8}", fullmatch=True)
starts = st.builds(
    Start,
    memory=st.none() | st.integers(LEAST_MEMORY, Config().memory_max),
    time=st.none() | st.integers(1, 864_000_000),
    name=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}", fullmatch=True),
    host_ipc=st.booleans(),
    wait=st.booleans(),
    ticket=st.none() | st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
)


@settings(deadline=None)  # other tests keep the machine busy
@given(starts | st.builds(Stop, id=IDS) | st.builds(Leave, ticket=IDS) | st.just(DropCache()))
def test_what_is_written_is_read(request: Start | Stop | Leave | DropCache) -> None:
    assert parse(encode(request)) == request


@settings(deadline=None)  # other tests keep the machine busy
@given(starts)
def test_a_start_is_written_the_same_without_the_modules_for_it(start: Start) -> None:
    assert parse(start_message(*start)) == start


@pytest.mark.parametrize(
    ("module", "needless"),
    [
        ("sparkhost.launcher.stub", {"enum", "re", "json", "pathlib", "typing", "contextlib", "signal", "socket"}),
        ("sparkhost.launcher.run", {"enum", "re", "json", "pathlib", "typing", "contextlib", "signal", "socket"}),
    ],
)
def test_what_every_start_waits_for_imports_nothing_that_takes_long(module: str, needless: set[str]) -> None:
    host = Path(__file__).resolve().parents[2] / "files" / "host"
    script = f"import sys; sys.path.insert(0, {str(host)!r}); import {module}; print(*sys.modules)"
    done = subprocess.run(["/usr/bin/python3", "-IS", "-c", script], capture_output=True, text=True, check=True)
    assert needless & set(done.stdout.split()) == set()


@settings(deadline=None)  # other tests keep the machine busy
@given(st.binary(max_size=LONGEST + 10))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(data)  # to be a request by chance takes more luck than there is


@settings(deadline=None)  # other tests keep the machine busy
@given(st.dictionaries(st.sampled_from([*FIELDS, "id", "uid", "User", "argv"]), JSON))
def test_only_known_properties_come_out_whatever_the_fields_are(fields: dict[str, Any]) -> None:
    try:
        request = parse(json.dumps({"version": 1, "action": "start", **fields}).encode())
    except BadRequest:
        return
    assert isinstance(request, Start)
    assert set(fields) <= set(FIELDS)
    try:
        unit = properties(request, Config(), 1000, "00000000")
    except TooLarge:
        return
    check_unit(unit, 1000, "00000000")


@settings(deadline=None)  # other tests keep the machine busy
@given(starts, st.integers(1, 2**32 - 2), st.from_regex(r"[0-9a-f]{8}", fullmatch=True))
def test_a_unit_is_the_callers_own_in_the_slice_and_killable(request: Start, uid: int, id_: str) -> None:
    check_unit(properties(request, Config(), uid, id_), uid, id_)


def check_unit(unit: list[tuple[str, str, Any]], uid: int, id_: str) -> None:
    names = [name for name, _, _ in unit]
    assert len(names) == len(set(names))
    assert FIXED - OPTIONAL <= set(names) <= FIXED | OPTIONAL
    values = {name: value for name, _, value in unit}
    assert values["User"] == str(uid)
    assert values["Slice"] == "training.slice"
    assert values["ExecStart"] == [(STUB, [STUB], False)]
    assert values["ExecStopPost"] == [(END, [END, str(uid), id_], False)]
    assert values["PermissionsStartOnly"] is True  # of systemd's commands, only the job's is the user's
    assert values["OOMScoreAdjust"] == 500
    assert LEAST_MEMORY <= values["MemoryMax"] <= Config().memory_max
    assert values["MemorySwapMax"] == 0
    allowed = string.ascii_letters + string.digits + "._- "
    assert set(values["Description"]) <= set(allowed)
    assert not {"Environment", "PAMName", "RootDirectory", "ExecStartPre", "AmbientCapabilities", "Group"} & set(names)


def start(**fields: Any) -> bytes:
    return json.dumps({"version": 1, "action": "start", **fields}).encode()


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_are_refused(value: str) -> None:
    with pytest.raises(BadRequest, match="name: "):
        parse(start(name=value))


@pytest.mark.parametrize("value", [*HOSTILE, "0123456", "0123456G", "ABCDEF01", "12345678\n", "../../aa"])
def test_only_ids_of_the_callers_jobs_can_be_named(value: str) -> None:
    with pytest.raises(BadRequest, match="stop takes the id"):
        parse(json.dumps({"version": 1, "action": "stop", "id": value}).encode())
    with pytest.raises(BadRequest, match="leave takes a ticket"):
        parse(json.dumps({"version": 1, "action": "leave", "ticket": value}).encode())
    with pytest.raises(BadRequest, match="ticket: expected"):
        parse(start(ticket=value))


@pytest.mark.parametrize("field", ["memory", "time"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "1", 2**63, 10**400, [], {}])
def test_numbers_are_whole_and_in_range(field: str, value: object) -> None:
    with pytest.raises(BadRequest):
        parse(
            start(**{field: value}) if value != 10**400 else start().replace(b"}", b',"memory":1' + b"0" * 400 + b"}")
        )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 1000,
        b'{"a":' * 200,
        b"null",
        b"[]",
        b"\xff",
        '{"version":1,"action":"start","name":"ä"}'.encode(),
        b'{"version":2,"action":"start"}',
        b'{"version":true,"action":"start"}',
        b'{"version":1.0,"action":"start"}',
        b'{"version":1,"action":"start","time":1,"time":2}',
        b'{"version":1,"action":"start","time":NaN}',
        b'{"version":1,"action":"drop_cache","path":"/"}',
        b'{"version":1,"action":["start"]}',
        b'{"version":1,"action":"start"}' + b" " * LONGEST,
        b'{"version":1,"action":"start"}\0',
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(data)


def test_a_job_larger_than_the_slice_is_refused_with_the_figures() -> None:
    with pytest.raises(TooLarge, match=r"asked for 2147483648 bytes, but training\.slice has 1073741824"):
        properties(Start(memory=2**31), Config(memory_max=2**30), 1000, "00000000")


def test_units_of_users_differ_for_the_same_id() -> None:
    assert unit_name(1000, "00000000") != unit_name(10000, "00000000")
    assert unit_name(1000, "00000000") == "spark-job-1000-00000000.service"
