#!/bin/sh
# Stands in for systemd: mounts what the NFS servers and clients of this root need, the root being read-only, and
# runs commands for the host. /mnt shows the root without what is mounted into it.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount --bind / /mnt
for dir in /tmp /var/lib/nfs /var/log; do
    mount -t tmpfs tmpfs $dir
done
mkdir /var/lib/nfs/sm /var/lib/nfs/v4recovery
: >/var/lib/nfs/etab
: >/var/lib/nfs/rmtab
mount /dev/vdb /data
ip link set lo up
modprobe virtio_net
ip link set eth0 up

# The port comes up a moment after its driver, and reads as empty until the other side is there.
modprobe virtio_console
mkdir -p /dev/virtio-ports
until port=$(ls /dev/vport* 2>/dev/null); do
    sleep 0.1
done
ln -sf "$port" /dev/virtio-ports/lab.control
while :; do
    lab-control
    sleep 0.1
done
