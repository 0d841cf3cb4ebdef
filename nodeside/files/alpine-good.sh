#!/bin/sh
# OpenRC's local service runs it when all else of the runlevel has started.
exec /usr/local/sbin/rootnfsd-good
