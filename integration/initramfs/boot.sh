#!/bin/sh
# Runs an initramfs script of init-bottom as it would be run, in a mount namespace of its own, and then another script
# in place of the node. Started by unshare, with
#   $1  the directory of the test, in which are
#       version/  what the root has      home/     what the server has at /home; none if it is missing
#       cmdline   the kernel's           bin/      all programs that there are, nfsmount and modprobe made up
#       hook      the script                       fsid      the server's number for the root, if it has one
#   $2  the shell that runs the hook, $3 what runs then in the shell of this one: the root is $root
# What the hook printed is in $1/console, what it told the kernel's log in $1/kmsg.
set -eu
dir=$1 shell=$2 then=$3
mount -t tmpfs tmpfs /media
mount -t tmpfs tmpfs /run
: >"$dir/kmsg"
mount --bind "$dir/cmdline" /proc/cmdline
[ ! -e /dev/kmsg ] || mount --bind "$dir/kmsg" /dev/kmsg
echo "IPV4ADDR='192.0.2.9'" >/run/net-lo.conf

# The root, mounted as a tmpfs that says it is from a server.
mkdir -p "$dir/root"
mount -t tmpfs 192.0.2.2:/images "$dir/root"
cp -a "$dir/version/." "$dir/root/"
mount -o remount,ro "$dir/root"

# What the kernel knows of the root's server.
if [ -f "$dir/fsid" ]; then
    mount -t tmpfs tmpfs /proc/fs
    mkdir /proc/fs/nfsfs
    read -r fsid <"$dir/fsid"
    printf 'NV SERVER   PORT DEV          FSID                              FSC\nv3 c0000202  801 0:0          1:0                               no \nv3 c0000202  801 %-12s %-33s no \n' \
        "$(mountpoint -d "$dir/root")" "$fsid" >/proc/fs/nfsfs/volumes
fi

export root="$dir/root"
status=0
# shellcheck disable=SC2016 # for the inner shell
env -i PATH="$dir/bin" rootmnt="$dir/root" "$shell" -c 'echo $$ >"$1/pid"; exec "$2" "$1/hook"' sh "$dir" "$shell" >"$dir/console" 2>&1 || status=$?
if [ "$status" != 137 ]; then
    cp /run/rootnfsd-overlay/status "$dir/status" 2>/dev/null || : >"$dir/status"
    [ "$status" = 0 ] || { echo "the hook ended with $status" >&2 && exit 1; }
    sh -euc "$then"
fi
# Unless the power was cut, what was written is safe now. The root goes first, then the loop device, then the home.
device=''
if [ "$status" != 137 ]; then
    sync -f "$dir/root" || true
    if grep -qx mode=loop "$dir/status"; then
        device=$(findmnt -no SOURCE "$dir/root/media/root-rw")
        mkdir /run/home
        mount --move "$dir/root/media/root-home" /run/home
    fi
fi
umount -R "$dir/root" 2>/dev/null || umount -R -l "$dir/root"
umount -R /media 2>/dev/null || umount -R -l /media
for device in $device $(losetup -n -O NAME -j "$dir/home/.rootnfsd/upper.img") $(losetup -n -O NAME -j "$dir/home/.rootnfsd/upper.img.new"); do
    losetup -d "$device" 2>/dev/null || true
done
[ ! -d /run/home ] || umount /run/home
[ "$status" != 137 ] || exit "$status"
