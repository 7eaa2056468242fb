"""Doubles of systemd's programs in a network namespace: networkd's part is done by ip(8), from the same files.

`write(folder)` puts them there. Everything else of a link's change is real: kernel, devices, packets, files.
"""

from __future__ import annotations

from pathlib import Path

SYSTEMCTL = """#!/bin/sh
# Double: systemd-networkd and sshd run, NetworkManager does not.
case "$*" in *NetworkManager* | *emergency*) exit 3 ;; esac
exit 0
"""
SYSTEMD_RUN = "#!/bin/sh\n# Double: no timer; a test takes the change back itself.\nexit 0\n"
NETWORKCTL = """#!/bin/sh
# Double: what `reconfigure` makes of the first file that names a device.
[ "$1" = reconfigure ] || exit 0
shift
for device; do
    file=$(grep -l "^Name=$device$" /etc/systemd/network/*.network 2>/dev/null | head -n 1)
    ip -4 address flush dev "$device" scope global
    [ -n "$file" ] || continue
    mtu=$(sed -n 's/^MTUBytes=//p' "$file")
    [ -z "$mtu" ] || ip link set "$device" mtu "$mtu"
    ip link set "$device" up
    for address in $(sed -n 's/^Address=//p' "$file"); do ip address add "$address" dev "$device"; done
done
exit 0
"""


def write(folder: Path) -> None:
    for name, text in (("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN), ("networkctl", NETWORKCTL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
