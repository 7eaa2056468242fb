"""The fleet file, typed: what is set for which host. Knows neither pyinfra nor the tasks."""

from sparkfleet.settings.base import Measure
from sparkfleet.settings.cluster_link import ClusterLinkSettings
from sparkfleet.settings.fleet import Fleet, FleetFile, FleetHost, HostEntry, chosen_fleet_file, load_fleet
from sparkfleet.settings.gpu_clock import GpuClockSettings
from sparkfleet.settings.headless import HeadlessSettings
from sparkfleet.settings.measures import (
    MEASURES,
    CudaEnvSettings,
    HostSettings,
    SshSettings,
    SwapSettings,
    UvSettings,
)
from sparkfleet.settings.problems import FleetError
from sparkfleet.settings.rollout import RolloutSettings
from sparkfleet.settings.shares import HostSize, Share
from sparkfleet.settings.stack import StackSettings
from sparkfleet.settings.tools import ToolsSettings
from sparkfleet.settings.training_slice import TrainingSliceSettings
from sparkfleet.settings.units import Seconds, Size
from sparkfleet.settings.vllm_container import VllmContainerSettings
from sparkfleet.settings.vllm_source import VllmSourceSettings
from sparkfleet.settings.watchdog import HardwareWatchdogSettings, WatchdogSettings

__all__ = [
    "MEASURES",
    "ClusterLinkSettings",
    "CudaEnvSettings",
    "Fleet",
    "FleetError",
    "FleetFile",
    "FleetHost",
    "GpuClockSettings",
    "HardwareWatchdogSettings",
    "HeadlessSettings",
    "HostEntry",
    "HostSettings",
    "HostSize",
    "Measure",
    "RolloutSettings",
    "Seconds",
    "Share",
    "Size",
    "SshSettings",
    "StackSettings",
    "SwapSettings",
    "ToolsSettings",
    "TrainingSliceSettings",
    "UvSettings",
    "VllmContainerSettings",
    "VllmSourceSettings",
    "WatchdogSettings",
    "chosen_fleet_file",
    "load_fleet",
]
