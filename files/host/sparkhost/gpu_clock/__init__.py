"""The GPU's highest clock, set through NVML.

* `resource`: whether a host has an NVML at all, for a deploy;
* `main`: `sparkfleet-gpu-clock set MHZ` and `reset`, which the unit calls.

NVML has no question for the limit that is set (its reference lists a setter and a reset, no getter), so
what was there before cannot be put back: `reset` is the driver's default.
"""
