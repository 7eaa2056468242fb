"""The measure `ssh` on the host: sshd's settings, and the guard that takes back a change which was not proved."""
