"""Metrics, alert rules and the dashboard, by a real Prometheus that scrapes a real node exporter. Needs no lab host.

The textfiles are those that the watchdog's own teller and the audit's own report write. Wants Debian's packages
prometheus and prometheus-node-exporter: `python -m tests.lab setup --acceptance` installs them.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sparkfleet import cli
from sparkfleet.audit.model import Severity, Status
from sparkfleet.audit.report import prometheus
from sparkhost.observer.alarms import Alarm
from sparkhost.observer.main import Observer
from sparkhost.watchdog import metrics
from sparkhost.watchdog.teller import Teller
from tests.unit.audit_runs import control, run

FILES = Path(__file__).resolve().parents[2] / "files" / "metrics"
RULES = FILES / "alerts.yml"
LOOK = {"available": 5 << 30}
SECONDS = 60.0


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def asked(port: int, path: str, **query: str) -> Any:
    """The data of an answer of Prometheus' API. Raises OSError."""
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        told = json.load(answer)
    assert told["status"] == "success"
    return told["data"]


def test_the_rules_are_rules_and_each_fires_when_it_should() -> None:
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(["promtool", *words], cwd=FILES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def textfiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a host in trouble tells, by the code that tells it."""
    folder = tmp_path_factory.mktemp("textfiles")
    cgroup = folder / "cgroup"
    (cgroup / "spark-job-1001-0000000a.service").mkdir(parents=True)
    for name, text in (("current", "99\n"), ("max", "100\n"), ("events", "oom 1\noom_kill 3\n")):
        (cgroup / f"memory.{name}").write_text(text)
    sample = folder / "sample.json"
    sample.write_text(json.dumps({"devices": [{"clock": 208, "most": 3000}, {"clock": None, "most": None}]}))
    observer = Observer(folder, cgroup, str(sample), ask=dict)
    observer.figures = {"at_once": 5, "unaccounted": 6, "driver_refused": 7}
    observed = folder / "observed.json"
    observed.write_bytes(observer.state([Alarm("orphan", "7", "it is left", "end it")]))
    patch = pytest.MonkeyPatch()
    patch.setattr(metrics, "OBSERVED", str(observed))
    patch.setattr(metrics, "SLICE", cgroup)
    patch.setattr(metrics, "SAMPLE", sample)
    teller = Teller(folder / "state", folder / "run", str(folder), None)
    teller.run_dir.mkdir()
    teller.counts["term"] = 2
    teller.state({"looks": 7, "look": LOOK, "lost": 0})
    patch.undo()
    red = control("SPK-SWAP-01", Severity.CRITICAL)
    (folder / "sparkfleet-audit.prom").write_text(prometheus.dumps(run({"spark1": [Status.FAIL]}, [red]), [red]))
    return folder


@pytest.fixture(scope="module")
def server(textfiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Prometheus that has scraped the exporter."""
    folder = tmp_path_factory.mktemp("prometheus")
    exporter_port, port = free_port(), free_port()
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{RULES}]\n"
        f"scrape_configs: [{{job_name: node, static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]}}]\n"
    )
    exporter = [
        "prometheus-node-exporter",
        f"--web.listen-address=127.0.0.1:{exporter_port}",
        f"--collector.textfile.directory={textfiles}",
    ]
    prometheus_ = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(exporter, **quiet) as one, subprocess.Popen(prometheus_, **quiet) as other:  # type: ignore[call-overload]
        try:
            until = time.monotonic() + SECONDS
            while not scraped(port):
                assert time.monotonic() < until, "nothing was scraped"
                time.sleep(0.2)
            yield port
        finally:
            for process in (one, other):
                process.kill()
    shutil.rmtree(folder)


def scraped(port: int) -> bool:
    try:
        return bool(asked(port, "query", query="sparkfleet_audit_started_seconds")["result"])
    except OSError:
        return False


def test_what_is_told_is_scraped(server: int) -> None:
    for name, value in (
        ("sparkfleet_watchdog_available_bytes", str(LOOK["available"])),
        ('sparkfleet_watchdog_events_total{kind="term"}', "2"),
        ("sparkfleet_slice_memory_bytes", "99"),
        ("sparkfleet_slice_oom_kills_total", "3"),
        ("sparkfleet_slice_jobs", "1"),
        ('sparkfleet_observer_warnings{kind="orphan"}', "1"),
        ("sparkfleet_observer_unaccounted_bytes", "6"),
        ('sparkfleet_gpu_clock_megahertz{gpu="0"}', "208"),
        ('sparkfleet_audit_red{host="spark1",control="SPK-SWAP-01",severity="critical",status="fail"}', "1"),
    ):
        (found,) = asked(server, "query", query=name)["result"]
        assert found["value"][1] == value, name
    assert asked(server, "query", query='sparkfleet_gpu_clock_megahertz{gpu="1"}')["result"] == []


def test_alerts_reach_prometheus(server: int) -> None:
    """Those without a waiting time fire at once; those with one are pending."""
    until = time.monotonic() + SECONDS
    wanted = {("SparkAuditRed", "firing"), ("SparkAuditStale", "firing"), ("SparkSliceNearCap", "pending")}
    while True:
        found = {(one["labels"]["alertname"], one["state"]) for one in asked(server, "alerts")["alerts"]}
        if wanted <= found:
            break
        assert time.monotonic() < until, found
        time.sleep(0.2)


def test_every_expression_of_the_dashboard_is_one_and_names_only_what_is_told(server: int) -> None:
    known = set(asked(server, "label/__name__/values"))
    panels = json.loads((FILES / "dashboard.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) > len(panels) > 5
    for expression in expressions:
        asked(server, "query", query=expression)
        assert set(re.findall(r"\b(?:sparkfleet|node)_\w+", expression)) <= known, expression


def test_the_configuration_that_is_written_scrapes_the_hosts_of_the_fleet_file(textfiles: Path, tmp_path: Path) -> None:
    exporter_port, port = free_port(), free_port()
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("known_hosts: k\nhosts: {spark7: {address: 127.0.0.1}}\n")
    words = ["metrics", "serve-config", str(tmp_path / "made"), "--fleet", str(fleet), "--port", str(exporter_port)]
    assert cli.main(words) == 0
    exporter = [
        "prometheus-node-exporter",
        f"--web.listen-address=127.0.0.1:{exporter_port}",
        f"--collector.textfile.directory={textfiles}",
    ]
    prometheus_ = [
        "prometheus",
        f"--config.file={tmp_path / 'made' / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(exporter, **quiet) as one, subprocess.Popen(prometheus_, **quiet) as other:  # type: ignore[call-overload]
        try:
            until = time.monotonic() + SECONDS
            while not scraped(port):
                assert time.monotonic() < until, "nothing was scraped"
                time.sleep(0.5)
            (found,) = asked(port, "query", query="sparkfleet_slice_jobs")["result"]
            assert found["metric"]["instance"] == "spark7"
            rules = [rule["name"] for group in asked(port, "rules")["groups"] for rule in group["rules"]]
            assert "SparkWatchdogKilled" in rules
        finally:
            for process in (one, other):
                process.kill()


def test_the_page_has_every_metric(server: int) -> None:
    told = {name for name in asked(server, "label/__name__/values") if name.startswith("sparkfleet_")}
    page = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(sparkfleet_\w+)", page, re.MULTILINE)) == told
