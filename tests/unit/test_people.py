"""Training users who do not cooperate: real accounts, groups and keys, in a namespace with an /etc of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparkhost.base.resource import Context, Failed
from sparkhost.training_slice import people
from sparkhost.training_slice.people import TrainingPeople

PROGRAM = Path(__file__).with_name("people_host.py")
NEEDED = ("useradd", "groupadd", "gpasswd", "usermod", "unshare")
# What eve does with her authorized_keys → what is told of it.
ATTACKS = {
    "zero": ".ssh/authorized_keys: no regular file",
    "holes": ".ssh/authorized_keys has more than 1024 KiB",
    "fifo": ".ssh/authorized_keys: no regular file",
    "unreadable": "Permission denied",
    "locked directory": ".ssh: cannot be entered",
    "stalled": "the home /home/eve gave no answer",
}


@pytest.fixture(scope="module", params=[*ATTACKS, "garbage"])
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    if os.getuid() or any(not any(Path(d, n).exists() for d in ("/usr/sbin", "/usr/bin")) for n in NEEDED):
        pytest.skip("needs root and the tools for accounts")
    if request.param == "stalled" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")
    command = ["unshare", "--mount", sys.executable, str(PROGRAM), request.param, str(tmp_path_factory.mktemp("etc"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout.splitlines()[-1])


def test_one_users_keys_cost_that_user_alone(attacked: tuple[str, dict[str, Any]]) -> None:
    kind, found = attacked
    before, after, _ = found["told"]
    assert (before["error"], before["members"], before["keys"]["ann"]) == (None, ["ann", "eve"], 1)
    assert after["members"] == ["bob", "eve"], "ann has left the group, bob is in it"
    assert after["keys"] == {"ann": 0, "bob": 1, "eve": None}
    assert after["went on"], "what follows in the measure"
    if kind in ATTACKS:
        assert after["error"].startswith(f"user eve: its keys: {'' if kind != 'unreadable' else 'cat: '}")
        assert ATTACKS[kind] in after["error"]
        assert "bob" not in after["error"]
    else:
        assert after["error"] is None


def test_accounts_are_locked_whatever_one_of_them_does(attacked: tuple[str, dict[str, Any]]) -> None:
    kind, found = attacked
    gone = found["told"][2]
    assert gone["expire"] == {"ann": "1", "bob": "1", "eve": "1"}
    assert gone["members"] is None, "the group is gone"
    assert gone["keys"]["bob"] == 0
    assert (gone["error"] is not None) is (kind in ATTACKS), "her keys are told of until they are gone"


def test_it_takes_neither_the_memory_nor_the_time_of_root(attacked: tuple[str, dict[str, Any]]) -> None:
    _, found = attacked
    assert found["peak"] < 100 * 1024  # KiB
    assert max(told["seconds"] for told in found["told"]) < 30


@pytest.mark.parametrize(
    "text", ["[]", "null", "{", "[" * 100_000, '{"members": null}', '{"locked": [1]}', '{"keys": [1]}', '{"x": 1}', ""]
)
def test_a_damaged_record_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(people, "RECORD", tmp_path / "record.json")
    people.RECORD.write_text(text)
    with pytest.raises(Failed, match=r"record\.json is damaged: move it away and deploy again"):
        TrainingPeople("daemon", {}, []).plan(Context())
