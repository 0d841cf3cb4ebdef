#!/bin/sh
# Puts into the initramfs what scripts/init-bottom/rootnfsd-overlay needs, as far as it is installed.
set -e
case ${1:-} in prereqs) echo && exit 0 ;; esac
# shellcheck source=/dev/null
. /usr/share/initramfs-tools/hook-functions

# One at a time, for not every kernel has all of them as modules. zram asks for its compressors by name when it runs.
for module in overlay loop ext4 zram lzo lzo_rle zstd lz4; do
    manual_add_modules "$module" || true
done

# busybox, which comes first, has a mke2fs that cannot make what is needed.
for program in e2fsck mke2fs; do
    for dir in /usr/sbin /sbin; do
        if [ -x "$dir/$program" ]; then
            rm -f "$DESTDIR/sbin/$program" "$DESTDIR/usr/sbin/$program"
            copy_exec "$dir/$program" "/sbin/$program"
            break
        fi
    done
done
if [ -f /etc/mke2fs.conf ]; then
    copy_file config /etc/mke2fs.conf || true
fi

# The rest are programs that busybox has.
if [ "${BUSYBOX:-y}" = n ] || ! [ -x /bin/busybox ]; then
    echo "W: rootnfsd-overlay: there is no busybox in the initramfs: rootnfsd.overlay= needs it" >&2
fi
