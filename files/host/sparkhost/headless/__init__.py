"""The desktop off: the display manager stopped, and a boot that does not start it.

* `record`: what was there before, so that all of it comes back;
* `desktop`: what PID 1 and logind say, and the two resources of the measure.
"""
