#!/bin/sh
# First boot of a lab host: take this host's own keys, name and password from the seed disk (a plain tar
# archive), and make the swap files, which need real blocks and so cannot come out of mkfs.ext4 -d.
set -eu
seed=/dev/disk/by-id/virtio-sparkfleet-seed
tar -C / -xpf "$seed" --exclude='./seed'
tar -xOf "$seed" ./seed/passwords | chpasswd
hostname -F /etc/hostname
for user in admin alice bob; do
    install -d -m 700 -o "$user" -g "$user" "/home/$user/.ssh"
    tar -xOf "$seed" "./seed/$user.pub" >"/home/$user/.ssh/authorized_keys"
    chown "$user:$user" "/home/$user/.ssh/authorized_keys"
    chmod 600 "/home/$user/.ssh/authorized_keys"
done

swap() {  # FILE MIB
    [ -e "$1" ] && return
    mkdir -p "${1%/*}/"
    touch "$1"
    chmod 600 "$1"
    fallocate -l "$2MiB" "$1"
    mkswap -q "$1"
}
if grep -q '^/swap.img' /etc/fstab; then swap /swap.img 256; fi
swap /var/swap/second 64
touch /var/lib/sparkfleet-lab/seeded
