"""The audit over a login as root, as sites have that let nobody use sudo."""

from __future__ import annotations

from pathlib import Path

from sparkfleet.audit.controls import CONTROLS
from tests.integration.auditing import audit, verdicts
from tests.integration.deploying import deploy, fleet
from tests.lab import Host, Lab


def test_as_root_it_sees_what_an_admin_sees(lab: Lab, spark1: Host, tmp_path: Path) -> None:
    spark1.clean()
    path = fleet(lab, [spark1], tmp_path / "fleet.yaml")
    result = deploy(lab, path)
    assert result.rc == 0, result.output
    spark1.sudo("install -d -m 700 /root/.ssh; install -m 600 ~admin/.ssh/authorized_keys /root/.ssh/authorized_keys")
    as_root = tmp_path / "root.yaml"
    as_root.write_text(path.read_text().replace("user: admin", "user: root"))
    done = {who: audit(lab, file) for who, file in (("admin", path), ("root", as_root))}
    seen = {who: {status: verdicts(run, status) for status in ("pass", "fail", "error")} for who, run in done.items()}
    assert seen["root"]["error"] == set(), done["root"].stderr
    assert seen["root"]["fail"] == seen["admin"]["fail"], done["root"].stderr
    # Root may lower its score: that control says so instead of passing.
    assert seen["admin"]["pass"] - seen["root"]["pass"] == {("SPK-SSH-03", spark1.name)}
    assert seen["root"]["pass"] < {(control.id, spark1.name) for control in CONTROLS}
