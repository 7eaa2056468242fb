"""The pure parts of the comparison with Ansible: figures, what its programs say, and what is sent to its hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.settings import HostSettings
from tests.bench.ansible import generate
from tests.bench.ansible.payload import module_of, shell_answer
from tests.bench.ansible.plausible import Converged, NoAnswer, sha1
from tests.bench.contenders import ansible_changes, our_changes
from tests.bench.figures import growth, median_ratio


def payload(name: str, arguments: dict[str, Any]) -> bytes:
    """A module's program in the form of ansible-core 2.19, as far as it is read."""
    params = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    lines = ["_ANSIBALLZ_WRAPPER = True", "_ansiballz_main(", f"module_fqn={name!r},", f"params={params!r},", ")"]
    return "\n".join(lines).encode()


def test_ratios_are_of_pairs_and_not_of_medians() -> None:
    # The second round was three times as slow for both.
    assert median_ratio([10.0, 30.0, 11.0], [1.0, 3.0, 1.0]) == 10.0


@pytest.mark.parametrize(("over", "under"), [([], []), ([1.0, 2.0], [1.0])])
def test_what_makes_no_pairs_is_no_ratio(over: list[float], under: list[float]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        median_ratio(over, under)


def test_a_line_is_found_and_its_error_is_none() -> None:
    law = growth({1: 2.05, 20: 3.0, 100: 7.0})
    assert law.fixed == pytest.approx(2.0)
    assert law.per_host == pytest.approx(0.05)
    assert law.worst == pytest.approx(0.0, abs=1e-9)


def test_what_grows_by_the_square_is_told() -> None:
    law = growth({1: 1.0, 20: 400.0, 100: 10000.0})
    assert law.exponent == pytest.approx(2.0)
    assert law.worst > 0.5


def test_one_point_has_no_law() -> None:
    with pytest.raises(ValueError, match="two points"):
        growth({20: 1.0})


def test_a_module_is_the_same_in_every_run_and_on_every_host() -> None:
    first = {"path": "/tmp/ansible-tmp-1.5-20-300/source", "_ansible_tmpdir": "/a", "_ansible_check_mode": False}
    second = {"path": "/tmp/ansible-tmp-9.7-11-811/source", "_ansible_tmpdir": "/b", "_ansible_check_mode": False}
    key = module_of(payload("ansible.modules.stat", first))
    assert key == module_of(payload("ansible.modules.stat", second))
    assert key == 'ansible.modules.stat {"_ansible_check_mode": false, "path": "/tmp/ansible-tmp/source"}'


def test_a_dry_run_asks_something_else() -> None:
    assert module_of(payload("a.b", {"_ansible_check_mode": True})) != module_of(
        payload("a.b", {"_ansible_check_mode": False})
    )


def test_what_is_no_module_is_none_and_an_unknown_form_is_an_error() -> None:
    assert module_of(b"import sys\n") is None
    with pytest.raises(ValueError, match=r"ansible-core 2\.19"):
        module_of(b"_ANSIBALLZ_WRAPPER = True\nparams=b'{}',\n")


def test_shell_commands_get_what_ansible_reads() -> None:
    assert shell_answer("/bin/sh -c 'echo ~root && sleep 0'", "/root") == "/root\n"
    made = '/bin/sh -c \'( umask 77 && mkdir -p "` echo /root/.ansible/tmp `"&& mkdir ".../ansible-tmp-1.5-20-300" )\''
    assert shell_answer(made, "/root") == "ansible-tmp-1.5-20-300=/root/.ansible/tmp/ansible-tmp-1.5-20-300\n"
    assert shell_answer("rm -rf /tmp/x", "/root") is None


def test_changes_are_read_from_both_outputs() -> None:
    recap = (
        "spark1 : ok=63   changed=2    unreachable=0    failed=0    skipped=4\n"
        "spark2 : ok=63   changed=1    unreachable=0    failed=0    skipped=4\n"
    )
    assert ansible_changes(recap) == 3
    ours = "    \x1b[1m[spark1]\x1b[0m swap: /etc/fstab: comment out the swap entry in line 3\n--> Starting\n"
    assert our_changes(ours) == 1
    assert our_changes("[spark1] Connected\n") == 0


def test_the_playbook_gets_the_files_that_our_deploy_writes(tmp_path: Path) -> None:
    settings = HostSettings()
    values = generate.write(settings, tmp_path)
    copied = {entry["dest"] for listed in values["files"].values() for entry in listed}
    ours = {
        resource["path"]
        for listed in generate.resources(settings).values()
        for resource in listed
        if "content" in resource and "path" in resource
    }
    assert copied == ours
    swap = values["files"]["swap"][0]
    assert Path(swap["src"]).read_text() == generate.resources(settings)["swap"][1]["content"]
    parents = {str(Path(path).parent) for path in copied}
    assert parents <= {*values["directories"], *generate.STOCK}


def test_a_made_up_host_has_the_playbooks_files(tmp_path: Path) -> None:
    generate.write(HostSettings(), tmp_path)
    variables = json.loads((tmp_path / "vars.json").read_text())
    host = Converged(variables)
    entry = variables["sparkfleet"]["files"]["swap"][0]
    answer = json.loads(host.answer(f'ansible.modules.stat {{"path": "{entry["dest"]}"}}'))
    assert answer["stat"]["checksum"] == sha1(Path(entry["src"]))
    with pytest.raises(NoAnswer):
        host.answer("ansible.modules.apt {}")
