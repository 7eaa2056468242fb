"""The audit in pytest: one item a control and host, and the evidence that its judges are tested with."""
