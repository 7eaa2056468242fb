"""What is done to every host: `sparkfleet deploy`, or `pyinfra @sparkfleet/fleet.yaml deploy.py`."""

from sparkfleet.operations import all_measures

# Your own measures stand here, in pyinfra's operations (docs.pyinfra.com), such as this one. Above all_measures(): the
# last of sparkfleet's proves that people still get in, on the host as all that stands above has left it. And where one
# of sparkfleet's is refused on a host, nothing below is done there.
#
# from pyinfra.operations import apt, files
#
# files.put(name="Message of the day", src="files/motd", dest="/etc/motd", mode="644", _sudo=True)
# apt.packages(name="What people ask for", packages=["htop", "tmux"], _sudo=True)
#
# Keys of its own in fleet.yaml, and a place in the audit: README.md, "Your own measures".

all_measures()
