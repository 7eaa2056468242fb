# managed by sparkfleet (measure: tools)
# Options, and the choices of an option, are read from the program's own --help.
_sparkfleet_options() {
    local word=$2 before=$3 shown
    shown=$("$1" --help 2>/dev/null) || return 0
    COMPREPLY=()
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(grep -oE -- '--[a-z][a-z-]+' <<<"$shown" | sort -u)" -- "$word")
    elif [[ $before == --* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(grep -oE -- "$before \{[^}]+\}" <<<"$shown" | head -n 1 |
            sed -E 's/.*\{(.*)\}/\1/; s/,/ /g')" -- "$word")
    fi
}
complete -o default -F _sparkfleet_options {{ name }}
