"""The compliance audit: one read-only probe a host, pure judges of what it saw, thin reports of their verdicts.

It imports neither `tasks/` nor pyinfra nor the code that changes hosts: the same bug would blind both eyes.
"""
