#!/bin/sh
# Finishes the root in directory $1, of guests that measure.
set -eu
root=$1
here=$(dirname "$0")
install -D -m 755 "$here/control.sh" "$root/usr/local/sbin/lab-control"
install -D -m 755 "$here/init.sh" "$root/usr/local/sbin/lab-init"
install -D -m 755 "$here/knfsd.sh" "$root/usr/local/sbin/lab-knfsd"
mkdir "$root/data" # for the other disk
mkdir -m 700 "$root/lost+found" # which any ext4 has; so disk and directory are the same tree

# What fio reads: one large file and many small ones, of which no part is like another.
fio=$root/srv/fio
mkdir -p "$fio/small"
head -c 128M /dev/urandom >"$fio/large"
head -c 24M /dev/urandom | split --numeric-suffixes --suffix-length=4 --bytes=12K - "$fio/small/"
