#!/bin/sh
# Mounts the home of this node when its network is up: OpenRC's local service runs it.
mountpoint -q /home || mount -t nfs -o rw,nfsvers=3,proto=tcp,noatime,hard,nolock server:/home /home
