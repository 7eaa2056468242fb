"""The subcommand `metrics`: writes configuration for Prometheus, with our rules and the dashboard."""

from __future__ import annotations

import argparse
import ipaddress
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sparkfleet.enrol.ssh import settings_of
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.places import FILES
from sparkfleet.selection import chosen_fleet, limited
from sparkfleet.settings import FleetHost
from sparkfleet.settings.problems import escaped
from sparkfleet.state_files import replace_file

DESCRIPTION = """\
Writes into DIR what shows this fleet in a Prometheus and a Grafana of your own: prometheus.yml, which scrapes the node
exporter of every host, targets.json, alerts.yml and dashboard.json. One that runs already takes the last three."""
EPILOG = """\
exit code: 4 for a bad configuration or a folder of somebody else's, else 0. docs/metrics.md says what is told."""
PORT = 9100
"""The node exporter's (https://github.com/prometheus/prometheus/wiki/Default-port-allocations)."""
OURS = "# managed by sparkfleet (sparkfleet metrics serve-config): written anew at each call\n"
JOB = "sparkfleet"
COPIED = ("alerts.yml", "dashboard.json")


def add_arguments(commands: Any) -> None:
    """Adds the subcommand, with `serve-config` as its only one."""
    parser = commands.add_parser("metrics", help="configuration for Prometheus and Grafana", description=DESCRIPTION)
    inner = parser.add_subparsers(dest="act", required=True, metavar="COMMAND")
    config = inner.add_parser("serve-config", help="write it", description=DESCRIPTION, epilog=EPILOG)
    config.add_argument("folder", type=Path, metavar="DIR", help="a folder of its own; made where it is not there")
    config.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    config.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
    )
    config.add_argument("--port", type=port, default=PORT, help=f"of the node exporters (default: {PORT})")
    config.set_defaults(run=serve_config)


def port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a port, 1 to 65535")
    return int(text)


def serve_config(arguments: argparse.Namespace) -> ExitCode:
    """Raises CommandFailed or FleetError; then nothing is written."""
    _, fleet = chosen_fleet(arguments.fleet)
    hosts = limited(fleet, arguments.limit)
    if not hosts:
        raise CommandFailed("the fleet file has no hosts: enrol one first", ExitCode.BAD_CONFIGURATION)
    folder: Path = arguments.folder.expanduser().absolute()
    check(folder)
    contents = {
        "prometheus.yml": prometheus(),
        "targets.json": json.dumps([target(host, arguments.port) for host in hosts], indent=1) + "\n",
        **{name: (FILES / "metrics" / name).read_text(encoding="utf-8") for name in COPIED},
    }
    write(folder, contents)
    print(f"wrote {', '.join(contents)} into {folder}")
    print(f"a Prometheus of its own: prometheus --config.file={folder}/prometheus.yml")
    print(f"one that runs: rule_files: [{folder}/alerts.yml], and file_sd_configs: [files: [{folder}/targets.json]]")
    print("Grafana: Dashboards, New, Import: dashboard.json")
    return ExitCode.CLEAN


def prometheus() -> str:
    """The configuration. Names of files in it are taken from its own folder."""
    value = {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [{"job_name": JOB, "file_sd_configs": [{"files": ["targets.json"]}]}],
    }
    return OURS + yaml.safe_dump(value, sort_keys=False)


def target(host: FleetHost, exporter: int) -> dict[str, Any]:
    """A host's exporter, called as the fleet file calls the host. Raises CommandFailed where ssh refuses."""
    address = host.address or host.name
    # What ssh_config makes of an alias; Prometheus knows nothing of it.
    found = settings_of(address, host.port, host.user).get("hostname", [address])[0]
    try:
        shown = f"[{found}]" if ipaddress.ip_address(found.partition("%")[0]).version == 6 else found
    except ValueError:
        shown = found
    return {"targets": [f"{shown}:{exporter}"], "labels": {"instance": host.name}}


def check(folder: Path) -> None:
    """Raises CommandFailed where somebody else's files would be replaced."""
    try:
        there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        ours = not there or (folder / "prometheus.yml").read_text(encoding="utf-8").startswith(OURS)
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        text = f"{escaped(str(folder))}: holds other files: name a folder that is empty, or was written by this command"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)


def write(folder: Path, contents: Mapping[str, str]) -> None:
    """Each file in one step; Prometheus reads the targets again by itself. Raises CommandFailed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            replace_file(folder / name, text, 0o644)
    except OSError as error:
        raise CommandFailed(f"{escaped(str(folder))}: cannot be written: {error.strerror}") from error
