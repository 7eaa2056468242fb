"""`sparkfleet metrics serve-config`: what it writes, and what Prometheus' own program says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FLEET = {
    "known_hosts": "known_hosts",
    "hosts": {"spark1": {"address": "10.0.0.1"}, "spark2": {"address": "fd00::2"}, "spark3.lab": {}},
}


def called(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(yaml.safe_dump(FLEET))
    command = [sys.executable, "-m", "sparkfleet.cli", "metrics", "serve-config", "--fleet", str(fleet), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_host_is_a_target_under_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    done = called(tmp_path, str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    targets = json.loads((folder / "targets.json").read_text())
    assert [(one["labels"]["instance"], one["targets"]) for one in targets] == [
        ("spark1", ["10.0.0.1:9100"]),
        ("spark2", ["[fd00::2]:9100"]),
        ("spark3.lab", ["spark3.lab:9100"]),
    ]
    assert json.loads((folder / "dashboard.json").read_text())["uid"] == "sparkfleet"
    assert called(tmp_path, str(folder), "--limit", "spark1", "--port", "9200").returncode == 0
    (one,) = json.loads((folder / "targets.json").read_text())
    assert one["targets"] == ["10.0.0.1:9200"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "alerts.yml",
        "dashboard.json",
        "prometheus.yml",
        "targets.json",
    ]


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "prometheus.yml").write_text("global: {}\n")
    done = called(tmp_path, str(folder))
    assert done.returncode == 4
    assert done.stderr.startswith(f"sparkfleet: {folder}: holds other files")
    assert [path.name for path in folder.iterdir()] == ["prometheus.yml"]


def test_prometheus_takes_it(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool: python -m tests.lab setup --acceptance installs it")
    folder = tmp_path / "prometheus"
    assert called(tmp_path, str(folder)).returncode == 0
    words = [program, "check", "config", str(folder / "prometheus.yml")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
