"""Code that runs on the hosts: typed, standard library only, Python 3.11 and later.

The controller sends the modules it needs along with each request (see `tasks/lib/remote.py`), so a
deploy works on a host where nothing of sparkfleet is installed yet, and a dry run leaves nothing behind.
"""
