#!/bin/sh
# Turns a copy of golden root v1 in directory $1 into v2.
set -eu
here=$(dirname "$0")
root=$1
lab=$root/usr/share/lab

echo v2 >"$root/etc/version-marker"
seq -f 'v2 %.0f' 1 90000 >"$lab/big"
rm "$lab/leaves"
echo 'v2 only' >"$lab/comes"

sh "$here/manifest.sh" "$root"
