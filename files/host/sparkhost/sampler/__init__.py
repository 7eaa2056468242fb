"""The GPU sampler: writes how many bytes each process holds on each GPU, once a second, and may hang or die.

A unit of its own: NVML can block for minutes in the driver, unkillable. Then its file grows old, and the watchdog ranks
by the processes' own memory. Nobody waits for it.
"""
