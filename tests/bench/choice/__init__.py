"""Whom to end: rules side by side on simulated hosts. `python -m tests.bench.choice`."""
