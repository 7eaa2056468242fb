# managed by sparkfleet (measure: watchdog). Says at login that work of yours was ended since you last looked.
if [ -t 1 ] && [ -r "/var/lib/sparkfleet/watchdog/notices/$(id -u)" ]; then
    if [ ! "${XDG_STATE_HOME:-$HOME/.local/state}/sparkfleet/why" -nt "/var/lib/sparkfleet/watchdog/notices/$(id -u)" ]; then
        {{ why }} || :
        mkdir -p "${XDG_STATE_HOME:-$HOME/.local/state}/sparkfleet" 2>/dev/null &&
            : 2>/dev/null >"${XDG_STATE_HOME:-$HOME/.local/state}/sparkfleet/why" || :
    fi
fi
