"""`sparkfleet enrol`: takes a host into the fleet. docs/enrolment.md tells what it does, for its users."""

from sparkfleet.enrol.command import add_arguments

__all__ = ["add_arguments"]
