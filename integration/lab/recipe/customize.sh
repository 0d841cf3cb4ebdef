#!/bin/sh
# Finishes the golden root in directory $1: what the tests and the demo look
# for in a booted node, on top of a plain Debian.
set -eu
root=$1
here=$(dirname "$0")

# The host runs commands in the node through lab-control; the reader is one of them.
install -D -m 755 "$here/control.sh" "$root/usr/local/sbin/lab-control"
install -D -m 644 "$here/control.service" "$root/etc/systemd/system/lab-control.service"
install -D -m 755 "$here/init.sh" "$root/usr/local/sbin/lab-init"
install -D -m 755 "$here/reader.sh" "$root/usr/local/sbin/lab-reader"
ln -s ../lab-control.service "$root/etc/systemd/system/multi-user.target.wants/lab-control.service"

# An ordinary user, and a root password for su to ask.
chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash ubuntu
printf 'root:golden\nubuntu:golden\n' | chroot "$root" chpasswd

# A node of the lab has no use for these, and under emulation each costs a second or more. Its network is up
# since the initramfs.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service networking.service getty-static.service getty@tty1.service serial-getty@ttyS0.service \
    systemd-pstore.service systemd-update-utmp.service systemd-timesyncd.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
: >"$root/etc/machine-id"

# Where an ssh server would look for its keys.
mkdir -p "$root/etc/ssh"

# What differs between the versions: a marker, a big file, one file that comes and one that goes.
lab=$root/usr/share/lab
mkdir -p "$lab"
echo v1 >"$root/etc/version-marker"
seq -f 'v1 %.0f' 1 90000 >"$lab/big"
echo 'v1 only' >"$lab/leaves"

# What an export gets wrong easily: special files, hard links, holes, odd modes and names, a link that dangles,
# times with nanoseconds.
odd=$lab/odd
mkdir "$odd"
mknod "$odd/char" c 4 65
mknod "$odd/block" b 259 1048575
mkfifo "$odd/fifo"
echo linked >"$odd/hard-a"
ln "$odd/hard-a" "$odd/hard-b"
truncate -s 64M "$odd/sparse"
printf x | dd of="$odd/sparse" bs=1 seek=33333333 conv=notrunc status=none
ln -s /nowhere/at/all "$odd/dangling"
install -m 0000 /dev/null "$odd/mode-0000"
install -m 6711 /dev/null "$odd/mode-6711"
install -d -m 3777 "$odd/mode-3777"
chown 4294967294:65534 "$odd/mode-3777"
: >"$odd/$(printf 'latin1-\351')"
: >"$odd/two  words"
: >"$odd/$(printf '%0255d' 0)"
touch -d '2001-02-03 04:05:06.123456789 UTC' "$odd/mode-6711"
touch -d '2040-01-02 03:04:05.000000001 UTC' "$odd/two  words"
