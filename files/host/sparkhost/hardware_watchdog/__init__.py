"""The hardware's timer before it can be armed: its driver, and what it says of the last reset.

* `driver`: loads the module at a deploy;
* `main`: `sparkfleet-hardware-watchdog MODULE`, at each boot: loads it too, and keeps what the timer says;
* `kept`: the file of that, read by whoever asks why a host died.

Why a program and not modules-load.d: systemd-modules-load leaves out what a `blacklist` line names (its source passes
KMOD_PROBE_APPLY_BLACKLIST), as Ubuntu's kernels do for sbsa_gwdt. modprobe by a module's own name does not
(modprobe.d(5): the line is about aliases).
"""
