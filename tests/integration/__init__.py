"""Break it, deploy, prove it, reboot, prove it again: on real lab hosts."""
