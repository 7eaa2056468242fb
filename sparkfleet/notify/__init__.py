"""`sparkfleet notify`: tells somebody when a host needs a person, and when it no longer does.

ways      mail, ntfy, a webhook as Slack has it, a command
notices   what is to be told now, by what was told before: pure
command   one look at the fleet, and the timer that makes it every minute
"""
