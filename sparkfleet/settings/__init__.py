"""The fleet file, typed: what is set for which host. Knows neither pyinfra nor the tasks."""

from sparkfleet.settings.fleet import Fleet, FleetFile, FleetHost, HostEntry, chosen_fleet_file, load_fleet
from sparkfleet.settings.measures import (
    CudaEnvSettings,
    HostSettings,
    Measure,
    SshSettings,
    SwapSettings,
    UvSettings,
    WatchdogSettings,
)
from sparkfleet.settings.problems import FleetError
from sparkfleet.settings.units import Seconds, Size

__all__ = [
    "CudaEnvSettings",
    "Fleet",
    "FleetError",
    "FleetFile",
    "FleetHost",
    "HostEntry",
    "HostSettings",
    "Measure",
    "Seconds",
    "Size",
    "SshSettings",
    "SwapSettings",
    "UvSettings",
    "WatchdogSettings",
    "chosen_fleet_file",
    "load_fleet",
]
