"""Loads the lab's fixtures: `lab`, `spark1` and `spark2` are there for every test."""

pytest_plugins = ["tests.lab.fixtures"]
