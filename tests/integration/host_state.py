"""What a host is, as far as a deploy could have changed it: files, units, swap. To be compared before and after."""

from __future__ import annotations

import re

from tests.lab import Host

# Not compared, because it is made anew from the rest, belongs to somebody's login, or is ours and does nothing:
#   ld.so.cache                         ldconfig(8) writes it for any library directory, in an order of its own
#   *.scope                             sessions that come and go
#   /var/lib/sparkfleet                 empty directories, and the file that the guard locks
#   /etc/group- and its like            what shadow's tools keep of the last change of the accounts
#   /var/lib/sparkfleet/applied.json    the history of deploys: another one after each
#   /var/lib/sparkfleet/backup/etc/fstab    as it was before the first deploy, kept for whoever wants to compare
EXCLUDED = re.compile(
    r" (/etc/ld\.so\.cache|/etc/(group|gshadow|passwd|shadow|subuid|subgid)-"
    r"|/var/lib/sparkfleet/(rollback/lock|applied\.json|backup/etc/fstab)) |^unit \S+\.scope "
    r"|^directory .* /var/lib/sparkfleet(/| $)"
)
ROOTS = ("/etc", "/opt", "/usr/local", "/usr/share/pam-configs", "/var/lib/pam", "/var/lib/sparkfleet", "/root")
SCRIPT = f"""
set -euo pipefail
export SYSTEMD_BUS_TIMEOUT=150s  # an emulated host beside others has taken longer than systemctl's 25 s
for root in {" ".join(ROOTS)}; do
  [ -e "$root" ] || continue
  find "$root" -xdev -type f -printf 'file %m %U:%G %p\\n'
  find "$root" -xdev -type f -print0 | xargs -0 -r sha256sum | sed -E 's/^\\\\?([0-9a-f]+)  (.*)$/content \\2 \\1/'
  find "$root" -xdev -type l -printf 'link %p %l\\n'
  find "$root" -xdev -type d -printf 'directory %m %U:%G %p\\n'
done
systemctl list-unit-files --no-legend --plain --no-pager | sed 's/  */ /g;s/^/unit /;s/ $//'
for unit in ssh.service ssh.socket system.slice swap.target training.slice sparkfleet-launcher.socket; do
  systemctl show "$unit" -p ActiveState,OOMScoreAdjust,MemoryMin,DropInPaths | sed "s/^/$unit /"
done
awk 'NR > 1 {{print "swap", $1, $2, $3}}' /proc/swaps
systemctl list-units --failed --plain --no-legend | sed 's/^/failed /'
"""


def state_of(host: Host) -> set[str]:
    """One line for each file, link, directory, unit, property and swap device."""
    lines = set(host.sudo(SCRIPT, timeout=180).stdout.splitlines())
    return {line for line in lines if not EXCLUDED.search(f"{line} ")}
