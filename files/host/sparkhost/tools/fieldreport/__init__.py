"""`spark-field-report`: tries on a real Spark what is only reported or inferred, in small sizes, and says what it saw.

* `cuda`: the driver's API by ctypes; `holder`: a process that takes GPU memory and can be ended;
* `trials`: what is tried with it; `host`: what the host says of itself;
* `report`: what is known, what was seen, and what follows; `cli`: the command.

Nothing in a report names a host, user, address, key or serial number.
"""
