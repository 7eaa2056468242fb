# Tries the sudo password on standard input, once: a second try could lock the account. -k: a cached login proves nothing.
LC_ALL=C
export LC_ALL
if said=$(sudo -k -S -p '' true 2>&1); then
    echo 'sparkfleet: accepted yes'
else
    printf 'sparkfleet: refused %s\n' "$(printf '%s' "$said" | tr '\n' ' ')"
fi
