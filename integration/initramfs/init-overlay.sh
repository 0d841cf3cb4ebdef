#!/bin/sh
# Stands in for init-overlay, and does what its authors say that it does: on a tmpfs at /overlay, robase is the root,
# rwdata what is written, combined both; that becomes the root of the system's own init. overlay=disable is to go on
# without.
set -e
case " $(cat /proc/cmdline) " in *" overlay=disable "*) exec /sbin/init ;; esac
modprobe overlay
mount -n -t tmpfs overlay /overlay
mkdir /overlay/robase /overlay/rwdata /overlay/rwdata/upper /overlay/rwdata/work /overlay/combined
mount -n --bind / /overlay/robase
mount -n -t overlay -o lowerdir=/overlay/robase,upperdir=/overlay/rwdata/upper,workdir=/overlay/rwdata/work overlay /overlay/combined
for dir in /proc /sys /dev /run; do
    mount -n --move "$dir" "/overlay/combined$dir"
done
cd /overlay/combined
pivot_root . mnt
mount -n --move /mnt/overlay /overlay
exec chroot . /bin/sh -c 'umount -l /mnt; exec /sbin/init' </dev/console >/dev/console 2>&1
