#!/bin/sh
# Tells the server that this node has booted and is well (docs/admin.md). A server without an operator's door for
# nodes (serve --admin :2050) is no fault of the node's: then nothing is said.
set -u
port=2050

# The server is where the root is from.
server=''
read -r line </proc/cmdline
set -f
for word in $line; do
    case $word in nfsroot=*:/*) server=${word#nfsroot=} server=${server%%:/*} ;; esac
done
set +f
while [ -z "$server" ] && read -r source _ type _; do
    case $type,$source in nfs*,*:/*) server=${source%%:/*} ;; esac
done </proc/mounts
if [ -z "$server" ]; then
    echo "the root is not over NFS: there is no server to tell" >&2
    exit 1
fi

limit=''
! command -v timeout >/dev/null || limit='timeout 20'

# What there is of bash, curl and wget; each prints the status, or nothing if there is no door.
answer=''
if command -v bash >/dev/null; then
    # shellcheck disable=SC2016,SC2086 # for bash; words
    answer=$($limit bash -c '
        exec 3<>"/dev/tcp/$1/$2" || exit
        printf "POST /v1/good HTTP/1.1\r\nHost: %s:%s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" "$1" "$2" >&3
        read -r _ status _ <&3 && echo "$status"' bash "$server" "$port" 2>/dev/null)
elif command -v curl >/dev/null; then
    answer=$(curl --silent --output /dev/null --max-time 20 --request POST --write-out '%{http_code}' "http://$server:$port/v1/good")
elif command -v wget >/dev/null; then
    # shellcheck disable=SC2086 # words
    said=$($limit wget -q -O /dev/null --post-data= "http://$server:$port/v1/good" 2>&1)
    case $?,$said in
        0,*) answer=200 ;;
        *"HTTP/1."*" "[0-9][0-9][0-9]*) answer=${said#*HTTP/1.? } answer=${answer%%[!0-9]*} ;; # busybox
        8,*) answer='with an error' ;;
    esac
else
    echo "there is none of bash, curl and wget to tell the server by" >&2
    exit 1
fi

case $answer in
    2??) echo "told $server that this node is well" ;;
    '' | 000) ;;
    *)
        echo "$server does not take it that this node is well: it answers $answer (docs/admin.md)" >&2
        exit 1
        ;;
esac
