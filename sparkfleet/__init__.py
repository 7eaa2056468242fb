"""The controller-side library of sparkfleet: neither a task nor a test."""
