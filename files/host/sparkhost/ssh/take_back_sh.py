"""The entry of the take-back on a host, in /bin/sh: Python may be half upgraded, or gone, when it is needed.

It runs `take_back.py`, and where that cannot even start, or hangs, does by itself what lets people in: rename, remove,
reload, restart. What it leaves undone (copies to remove, sessions to free) the next run of Python's makes up for.
"""

from __future__ import annotations

UNDONE = 75
"""Exit code: something still differs, so try again (EX_TEMPFAIL of sysexits.h)."""

SCRIPT = r"""#!/bin/sh
# managed by sparkfleet (measure: ssh). Here only while a change to SSH is not proved yet; see docs/ssh.md.
# Usage: take-back timer|boot
here=${0%/*}
state=${here%/*}
tab=$(printf '\t')

# At boot nothing else would try again; from the timer, systemd does (Restart=on-failure).
end() {
    if [ "$1" != 0 ] && [ "$2" = boot ]; then
        systemd-run --quiet --collect --no-block --unit=sparkfleet-rollback --on-active=60 \
            --property=Restart=on-failure --property=RestartSec=60 /bin/sh "$0" timer
    fi
    exit "$1"
}

timeout -k 10 900 /usr/bin/python3 -I -S -B "$here/take_back.py" "$1"
case $? in
    0) end 0 "$1" ;;
    75) end 75 "$1" ;;
esac

# From here on without Python. The lock is the same one.
exec 9<"$state/lock" && flock -w 60 9 || end 75 "$1"
[ -e "$state/record.armed" ] && mv -f "$state/record.armed" "$state/record.taking-back"
record=$state/record.taking-back
[ -e "$record" ] || record=$state/record.armed
[ -e "$record" ] || end 0 "$1"
undone=0 stage=changed units= last= after=
while IFS=$tab read -r kind path rest; do
    case $kind in
        file | link)
            ready=${path%/*}/.${path##*/}.sparkfleet-old~
            if [ -e "$ready" ] || [ -L "$ready" ]; then mv -fT -- "$ready" "$path" || undone=1; fi ;;
        stage) stage=$path ;;
        after) after=$path ;;
        active) units="$units $path" ;;
        end) last=end ;;
    esac
done <"$record"
# Only when all contents are back: a PAM stack must not name a program that is gone.
[ "$undone" = 0 ] && while IFS=$tab read -r kind path rest; do
    if [ "$kind" = absent ]; then rm -f -- "$path" || undone=1; fi
done <"$record"
# A record that was cut off is kept for a person.
[ "$last" ] || undone=1
sync
systemctl daemon-reload || undone=1
if [ "$1" != boot ]; then
    [ -z "$after" ] || /bin/sh -c "$after" || undone=1
    case $stage in
        restart*) /usr/sbin/sshd -t && systemctl restart ssh.service || undone=1 ;;
    esac
    for unit in $units; do
        systemctl start "$unit" || undone=1
    done
fi
logger -t sparkfleet "ssh: an unproved change was taken back without Python, undone: $undone"
[ "$undone" = 0 ] || end 75 "$1"
echo "an unproved change was taken back, by /bin/sh, as Python did not run" >"$state/last-report"
mv -f "$record" "$state/record.ended" || end 75 "$1"
sync
systemctl stop sparkfleet-rollback.timer
exit 0
"""
