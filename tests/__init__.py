"""Tests of sparkfleet: unit, lab, integration, bench."""
