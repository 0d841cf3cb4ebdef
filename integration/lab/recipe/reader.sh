#!/bin/bash
# Reads part of the lower root over and over, from the server each time, and holds it against the SHA-256
# sums that the version had when it was made. In /run/lab-reader:
#   manifest  the sums
#   wrong     what could not be read or was not as listed
#   gaps      a line for each half second and more in which no file was done: microseconds
#   files     how many files have been read
dir=/run/lab-reader
mkdir $dir
cp /media/root-ro/usr/share/lab/manifest $dir/manifest
cd /media/root-ro || exit
files=0
last=${EPOCHREALTIME/./}
while echo 3 >/proc/sys/vm/drop_caches; do
    while IFS= read -r line; do
        now=${EPOCHREALTIME/./}
        ((now - last >= 500000)) && echo $((now - last)) >>$dir/gaps
        last=$now
        printf '%9d\n' $((++files)) 1<>$dir/files # never empty, not even for an instant
        [[ $line == *': OK' ]] || echo "$line" >>$dir/wrong
    done < <(stdbuf -oL sha256sum --check $dir/manifest 2>&1)
done
