# Reads what enrolment must know of a host, and changes nothing. Each line of output is `sparkfleet: KEY VALUE`; a value
# of several lines is several lines of the same key. Standard input: the data of the key that must be authorised, or -.
IFS= read -r blob
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
say() {
    printf 'sparkfleet: %s %s\n' "$1" "$2"
}
each() {
    while IFS= read -r each_line; do
        say "$1" "$each_line"
    done
}

say user "$(id -un)"
say uid "$(id -u)"
say home "$HOME"
say arch "$(uname -m)"
say kernel "$(uname -r)"
say os "$(. /etc/os-release 2>/dev/null && printf '%s' "$PRETTY_NAME")"
say python "$(python3 -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
if [ "$blob" != - ] && grep -v '^[[:space:]]*#' "$HOME/.ssh/authorized_keys" 2>/dev/null | grep -qF -- "$blob"; then
    say key present
fi

if ! command -v sudo >/dev/null; then
    say sudo none
elif said=$(sudo -n true 2>&1 </dev/null); then
    say sudo free
else
    say sudo "refused $(printf '%s' "$said" | tr '\n' ' ')"
fi

# By the driver, else by the bus (0x10de: NVIDIA; class 0x03: display). No nvidia-smi: it can hang on a wedged host.
sed -n 's/^Model:[[:space:]]*//p' /proc/driver/nvidia/gpus/*/information 2>/dev/null | each gpu
for device in /sys/bus/pci/devices/*; do
    if [ "$(cat "$device/vendor" 2>/dev/null)" = 0x10de ]; then
        case $(cat "$device/class") in
            0x03*) say gpu_bus "${device##*/}" ;;
        esac
    fi
done

# By logind: `who` knows no sessions without a terminal on some releases, and counts this very one on others.
sessions=$(loginctl list-sessions --no-legend 2>/dev/null | awk -v own="${XDG_SESSION_ID:-}" '$1 != own { print $1 }')
if [ -n "$sessions" ]; then
    # No quotes: one argument a session.
    loginctl show-session -p Name -p Class -p State -p TTY -p Service -p RemoteHost -p Timestamp $sessions 2>/dev/null |
        awk -F = '
            function tell() {
                if (v["Class"] ~ /^user/ && v["State"] != "closing")
                    print v["Name"] " " (v["TTY"] != "" ? v["TTY"] : v["Service"]) \
                        (v["RemoteHost"] != "" ? " from " v["RemoteHost"] : "") " since " v["Timestamp"]
                delete v
            }
            NF == 0 { tell(); next }
            { v[$1] = $2 }
            END { tell() }' |
        each login
fi
say load "$(cut -d ' ' -f 1-3 /proc/loadavg)"
say uptime "$(cut -d . -f 1 /proc/uptime)"
tail -n +2 /proc/swaps | awk '{ print $1, $3, $4 }' | each swap
if [ -e /opt/sparkfleet ]; then
    say deployed yes
fi
# What runs, by memory: from 1 GiB on (containers run theirs as root), or what takes a user half a core for 10 s.
ps -eo uid=,user:32=,pid=,pcpu=,rss=,etimes=,comm= --sort=-rss 2>/dev/null |
    awk '($5 >= 1048576 || $1 >= 1000 && $4 >= 50 && $6 >= 10) && n++ < 5 {
        $1 = ""
        print substr($0, 2)
    }' | each job
# They outlive the login that started them, and so may what runs in them.
ps -eo user:32=,pid=,comm= 2>/dev/null | awk '$3 ~ /^(tmux|screen|SCREEN)/ && $NF != "client" { print $1, $2, $3 }' |
    sed 's/:$//' | each terminal
say end .
