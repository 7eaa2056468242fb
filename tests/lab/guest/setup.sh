#!/bin/sh
# Runs once in the new root file system, while the image is built.
# usage: setup.sh SSH_UNIT
set -eu

useradd --create-home --uid 1000 --shell /bin/bash --groups sudo admin
useradd --create-home --uid 1001 --shell /bin/bash alice
useradd --create-home --uid 1002 --shell /bin/zsh bob
touch /home/bob/.zshrc
chown bob:bob /home/bob/.zshrc
passwd -q -l root

mkdir -p /var/log/journal /var/lib/sparkfleet-lab "/mnt/scratch space" /mnt/absent /srv/fast
case $1 in
    ssh.socket) systemctl -q disable ssh.service; systemctl -q enable ssh.socket ;;
    ssh.service)
        systemctl -q disable ssh.socket 2>/dev/null || :
        # Ubuntu's image: the drop-in of the socket's generator goes with the socket
        rm -f /etc/systemd/system/ssh.service.requires/ssh.socket
        systemctl -q enable ssh.service ;;
esac
systemctl -q enable systemd-networkd.service cron.service var-swap-second.swap \
    sparkfleet-seed.service sparkfleet-agent.service
systemctl -q set-default multi-user.target

# Quiet: nothing that starts by itself minutes after a snapshot was restored and its clock set.
for unit in apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer dpkg-db-backup.timer logrotate.timer motd-news.timer \
    systemd-networkd-wait-online.service; do
    systemctl -q mask "$unit"
done

update-ca-certificates >/dev/null 2>&1
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: >/etc/machine-id
rm -rf /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /var/lib/apt/lists /var/cache/apt/*.bin
mkdir -p /var/lib/apt/lists/partial
