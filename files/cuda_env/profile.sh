# managed by sparkfleet (measure: cuda_env). Read by login shells (sh, bash; zsh does not read profile.d).
# What the shell has already stays: a value of your own wins, and directories are added once, in front.
# To set a value yourself: export it in ~/.profile or ~/.bashrc, which come later.

# The search path $1 with directory $2 in it, once: where it stands already, else in front. Empty elements go, as they
# mean the current directory. Only parameter expansion: dash, bash and zsh, with or without `set -eu`.
_sparkfleet_path() {
    _sparkfleet_rest=${1}:
    _sparkfleet_result=
    _sparkfleet_seen=
    while [ -n "$_sparkfleet_rest" ]; do
        _sparkfleet_element=${_sparkfleet_rest%%:*}
        _sparkfleet_rest=${_sparkfleet_rest#*:}
        if [ "$_sparkfleet_element" = "$2" ]; then
            if [ -n "$_sparkfleet_seen" ]; then continue; fi
            _sparkfleet_seen=yes
        fi
        if [ -n "$_sparkfleet_element" ]; then
            _sparkfleet_result=${_sparkfleet_result:+$_sparkfleet_result:}$_sparkfleet_element
        fi
    done
    if [ -z "$_sparkfleet_seen" ]; then
        _sparkfleet_result=$2${_sparkfleet_result:+:$_sparkfleet_result}
    fi
}

{% for name, directory in front.items() %}
_sparkfleet_path "{{ '${' ~ name ~ '-}' }}" '{{ directory }}'
export {{ name }}="$_sparkfleet_result"
{% endfor %}
{% for name, value in values.items() %}
if [ -z "{{ '${' ~ name ~ '+set}' }}" ]; then export {{ name }}='{{ value }}'; fi
{% endfor %}

unset -f _sparkfleet_path
unset _sparkfleet_rest _sparkfleet_result _sparkfleet_seen _sparkfleet_element
