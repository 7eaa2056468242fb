"""The playbook that the deploy is compared with, and what plays a converged host to it."""
