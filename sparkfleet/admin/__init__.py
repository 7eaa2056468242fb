"""An admin's day: what is set for a host, a command on hosts, the lock, the history, the settings before."""
