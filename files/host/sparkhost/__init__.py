"""Code that runs on the hosts: typed, stdlib only, Python 3.11 and later."""
