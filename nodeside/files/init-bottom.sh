#!/bin/sh
# Lays what this node writes over its read-only root, as rootnfsd.overlay= on the kernel's command line says:
#
#   tmpfs[:size=30%][,zram]       in memory, with zram compressed
#   loop[:size=2G][,OPTION...]    in an image file in the node's home on the server
#   device:LABEL=upper[,OPTION...] on a disk of the node's own (or UUID=..., /dev/...)
#   off                           not at all
#
# OPTIONS of the last two are keep, move or clear (at each boot), on-change=keep|move|clear (when the version is
# another one), old=N (how many that were moved aside stay), and of loop home=[SERVER:]/PATH. Without
# rootnfsd.overlay= nothing happens here. Whatever fails, the node boots, and writes to memory.
# /run/rootnfsd-overlay/status says what was done, and `rootnfsd-overlay status` shows it.

case ${1:-} in prereqs) echo && exit 0 ;; esac

ro=/media/root-ro     # the version
rw=/media/root-rw     # the file system with upper and work
home=/media/root-home # the home with the image
state=/run/rootnfsd-overlay

root=${rootmnt:?}

newline='
'

# one_line sets text to $1 with its lines joined: programs may say in the second what is wrong.
one_line() {
    text=$1
    while :; do
        case $text in
            *"$newline"*) text="${text%%"$newline"*} ${text#*"$newline"}" ;;
            *) break ;;
        esac
    done
}

# Notes for people on the node, one key=value a line; the last of a key counts, but for "problem" and "notice".
note() {
    one_line "$2"
    echo "$1=$text" >>"$state/status"
}

# What went wrong is on every console, and in the journal.
warn() {
    note problem "$1"
    tell 3
}

# So is what was wanted, and people should know.
notice() {
    note notice "$1"
    tell 4
}

tell() { { echo "<$1>rootnfsd-overlay: $text" >/dev/kmsg; } 2>/dev/null || echo "rootnfsd-overlay: $text" >&2; }

move_mount() { mount -n -o move "$1" "$2" 2>/dev/null || mount -n --move "$1" "$2"; }

# mounted sets source and type to those of what is mounted at $1.
mounted() {
    source='' type=''
    while read -r s at t _; do
        [ "$at" != "$1" ] || source=$s type=$t
    done </proc/mounts
    [ -n "$type" ]
}

# Reading the command line.

read_words() {
    unset wanted
    version='' nfsroot=''
    read -r line </proc/cmdline
    set -f
    for word in $line; do
        case $word in
            rootnfsd.overlay=*) wanted=${word#*=} ;;
            rootnfsd.version=*) version=${word#*=} ;;
            nfsroot=*) nfsroot=${word#*=} ;;
        esac
    done
    set +f
}

# is_size is true of a size of 1 MiB or more, in bytes or with k, m or g, and sets kib to it; with $2 also of a
# percentage. Less is no upper, but something that was forgotten.
is_size() {
    number=$1
    case $1 in
        *%) [ -n "${2:-}" ] && number=${1%?} ;;
        *[kKmMgG]) number=${1%?} ;;
    esac
    case $number in
        '' | 0* | *[!0-9]* | ?????????????*) return 1 ;;
    esac
    case $1 in
        *%)
            [ "$number" -le 100 ]
            return
            ;;
        *[kK]) kib=$number ;;
        *[mM]) kib=$((number * 1024)) ;;
        *[gG]) kib=$((number * 1024 * 1024)) ;;
        *) kib=$((number / 1024)) ;;
    esac
    [ "$kib" -ge 1024 ]
}

# parse takes $wanted apart.
parse() {
    kind=${wanted%%:*} what='' mode=keep on_change=move old=2 from=/home
    unset size
    rest=''
    case $wanted in *:*) rest=${wanted#*:} ;; esac
    case $kind in
        tmpfs | loop | off) ;;
        device)
            what=${rest%%,*}
            case $rest in *,*) rest=${rest#*,} ;; *) rest='' ;; esac
            ;;
        *) reason="rootnfsd.overlay=$kind is none of tmpfs, loop, device and off" && return 1 ;;
    esac
    medium=$kind
    set -f
    oldifs=$IFS IFS=,
    # shellcheck disable=SC2086 # a list
    set -- $rest
    IFS=$oldifs
    set +f
    for option; do
        case $medium,$option in
            tmpfs,zram) kind=zram ;;
            tmpfs,size=* | loop,size=*) size=${option#*=} ;;
            loop,home=/* | loop,home=?*:/*) from=${option#*=} ;;
            loop,keep | loop,move | loop,clear | device,keep | device,move | device,clear) mode=$option ;;
            loop,on-change=keep | loop,on-change=move | loop,on-change=clear) on_change=${option#*=} ;;
            device,on-change=keep | device,on-change=move | device,on-change=clear) on_change=${option#*=} ;;
            loop,old=[1-9] | loop,old=[1-9][0-9] | device,old=[1-9] | device,old=[1-9][0-9]) old=${option#*=} ;;
            *) reason="rootnfsd.overlay=$medium has no option $option" && return 1 ;;
        esac
    done
    case $kind in
        tmpfs | zram)
            [ -n "${size+set}" ] || size=50%
            is_size "$size" percent || { reason="size=$size is no size: want something like 30% or 256M, and 1M at least" && return 1; }
            ;;
        loop)
            [ -n "${size+set}" ] || size=2G
            is_size "$size" || { reason="size=$size is no size: want something like 2G, and 1M at least" && return 1; }
            ;;
        device)
            [ -n "$what" ] || { reason="rootnfsd.overlay=device says no device: want device:LABEL=upper" && return 1; }
            ;;
    esac
}

# The server's number for the file system follows from the version's digest. It is written as in the rootnfsd.version=
# of the server: 16 digits, without the half that other servers use. The path may say less: /images is whatever was
# promoted.
find_version() {
    [ -z "$version" ] || return 0
    device=''
    while read -r _ _ d _ at _; do
        [ "$at" != "$root" ] || device=$d
    done </proc/self/mountinfo
    while read -r _ _ _ d fsid _; do
        [ "$d" != "$device" ] || version=${fsid%:0}
    done 2>/dev/null </proc/fs/nfsfs/volumes
    case $version in
        '' | 0) version=${nfsroot%%,*} ;;
        *:*) ;;
        *) while [ "${#version}" -lt 16 ]; do version=0$version; done ;;
    esac
    : "${version:=unknown}"
}

# Upper layers that last. Each is a file system with
#   upper, work         what overlayfs wants
#   rootnfsd/version    over which version upper was made
# What the node is to do at its next boot is in the file "next": clear or disable.

# take_next reads what was asked for by rootnfsd-overlay on the node, from the file $1.
take_next() {
    asked=''
    [ ! -f "$1" ] || [ -L "$1" ] || read -r asked <"$1"
    case $asked in
        clear) mode=clear ;;
        disable) disabled=yes && note asked disable && return 1 ;;
    esac
}

# done_next forgets it: the upper is as it was asked for.
done_next() {
    [ "$asked" != clear ] || rm -f "$1" || warn "what was written is cleared at each boot, for $1 cannot be removed"
}

# free_name sets name to $1.N that is not there, with an N above all that are. What is named otherwise, such as $1.08,
# is somebody's.
free_name() {
    n=0
    for p in "$1".*; do
        p=${p##*.}
        case $p in '' | 0* | *[!0-9]* | ?????????*) ;; *) [ "$p" -le "$n" ] || n=$p ;; esac
    done
    name=$1.$((n + 1))
}

# prune removes the oldest of $1.N, until $old are left. Those that were damaged all stay.
prune() {
    free_name "$1"
    oldest=$((n - old))
    for p in "$1".*; do
        case ${p##*.} in '' | 0* | *[!0-9]* | ?????????*) ;; *) [ "${p##*.}" -gt "$oldest" ] || rm -rf "$p" ;; esac
    done
}

# over reads over which version the upper in $rw was made, nothing if there is no upper yet.
over() {
    made_over=''
    [ -d "$rw/upper" ] || return 0
    [ ! -f "$rw/rootnfsd/version" ] || read -r made_over <"$rw/rootnfsd/version"
    : "${made_over:=unknown}"
}

# begin writes that down, before there is an upper that it would be wrong for.
begin() {
    if [ -z "$made_over" ]; then
        mkdir -p "$rw/rootnfsd" || return
        echo "$version" >"$rw/rootnfsd/version.new" || return
        sync # or a power cut may leave the name without what is in it
        mv "$rw/rootnfsd/version.new" "$rw/rootnfsd/version" || return
        sync # or there may be an upper that looks as if it were not the node's
        made_over=$version
    fi
    mkdir -p "$rw/upper" "$rw/work"
}

# stale decides what becomes of an upper that was made over another version: policy is set to it.
stale() {
    policy=keep
    [ -n "$made_over" ] && [ "$made_over" != "$version" ] || return 1
    policy=$on_change
    case $policy in
        keep) notice "the changes were made over another version ($made_over), and are kept over $version: files may not fit together" ;;
        move) notice "the changes were made over another version ($made_over): they are moved aside" ;;
        clear) notice "the changes were made over another version ($made_over): they are cleared" ;;
    esac
    [ "$policy" != keep ]
}

# An image in the home.

# mount_home mounts the home for writing.
mount_home() {
    case $from in
        /*)
            mounted "$root"
            case $source in
                ?*:/*) from=${source%%:/*}:$from ;;
                *) reason="the root is not on NFS, so home=SERVER:/PATH must say where the image is" && return 1 ;;
            esac
            ;;
    esac
    port=''
    set -f
    oldifs=$IFS IFS=,
    for option in $nfsroot; do
        case $option in port=*) port=,$option ;; esac
    done
    IFS=$oldifs
    set +f
    limit=''
    ! command -v timeout >/dev/null || limit='timeout -s KILL 60'
    mkdir -p "$home"
    # shellcheck disable=SC2086 # words
    why=$($limit nfsmount -o "rw,v3,tcp,nolock,hard$port" "$from" "$home" 2>&1) || {
        reason="the home $from cannot be mounted: ${why:-no answer}"
        return 1
    }
    note home "$from"
}

# open_store finds the directory of the image, which nobody else on the node may use.
open_store() {
    dir=$home/.rootnfsd
    [ -d "$dir" ] || mkdir -m 700 "$dir" 2>/dev/null
    if [ -L "$dir" ] || ! [ -d "$dir" ] || ! chmod 700 "$dir" 2>/dev/null; then
        reason="root of this node cannot use .rootnfsd in $from: let the server make it, mode 700, for the user that root is there (65534, or --anonuid)"
        return 1
    fi
}

# whoami sets me to address, MAC and boot of this node.
whoami() {
    address=- mac=-
    for conf in /run/net-*.conf; do
        [ -f "$conf" ] || continue
        while read -r line; do
            case $line in IPV4ADDR=*) line=${line#*=} line=${line#[\'\"]} address=${line%[\'\"]} ;; esac
        done <"$conf"
        conf=${conf#/run/net-}
        { read -r mac <"/sys/class/net/${conf%.conf}/address"; } 2>/dev/null
        [ "$address" = - ] || break
    done
    read -r boot </proc/sys/kernel/random/boot_id
    me="${address:--} ${mac:--} $boot"
}

# is_me is true if the lock is of this node, booted before: it has the same card. An address may be another node's by
# now, so it counts only where there is no card to go by. An empty lock is of a node that found no room for its name.
is_me() {
    [ -f "$dir/upper.lock" ] || return
    [ -s "$dir/upper.lock" ] || return 0
    case $its_mac,$mac in
        -,* | *,-) [ "$address" != - ] && [ "$its_address" = "$address" ] ;;
        *) [ "$its_mac" = "$mac" ] ;;
    esac
}

# lock makes the upper this node's own. Nodes cannot lock files of the server, but a link is made by one alone.
lock() {
    whoami
    mine=$dir/claim.${boot:-0}
    # A server that is full says so when a file is closed, which the shell does not tell.
    said=''
    { echo "$me" >"$mine" && read -r said <"$mine"; } 2>/dev/null
    if [ "$said" != "$me" ]; then
        rm -f "$mine"
        reason="nothing can be written to $from: it may be full"
        return 1
    fi
    ln "$mine" "$dir/upper.lock" 2>/dev/null
    owner=''
    [ ! -f "$dir/upper.lock" ] || read -r owner <"$dir/upper.lock"
    if [ "$owner" = "$me" ]; then
        rm -f "$dir"/claim.* # also those of boots that ended here
        return 0
    fi
    its_address=${owner%% *} its_mac=${owner#* } its_mac=${its_mac%% *}
    if is_me; then
        mv -f "$mine" "$dir/upper.lock" || { reason="the lock of the upper in $from cannot be replaced" && return 1; }
        rm -f "$dir"/claim.*
        return 0
    fi
    rm -f "$mine"
    reason="the upper in $from belongs to the node ${its_address:-?} (${its_mac:-?}): if that is gone for good, or is this one with another card, remove .rootnfsd/upper.lock there"
    return 1
}

make_image() {
    rm -f "$image.new"
    why=$(mke2fs -q -F -t ext4 -m 0 -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 "$image.new" "${kib}k" 2>&1 </dev/null) || {
        rm -f "$image.new"
        reason="no image can be made in $from: $why"
        return 1
    }
}

# renew replaces the image by a new one: by $1, clear, move or damaged. At each moment there is one under its name,
# or beside it one that was moved aside; what was written is lost by clear alone.
renew() {
    make_image || return
    reason="the image in $from cannot be replaced"
    case $1 in
        move) free_name "$image.old" && mv "$image" "$name" ;;
        damaged) free_name "$image.damaged" && mv "$image" "$name" && note aside "${name##*/}" ;;
    esac || return
    mv -f "$image.new" "$image" || return
    [ "$1" != move ] || prune "$image.old"
    reason=''
}

# tell_aside says where what was written is, if the power was cut between the two steps of renew.
tell_aside() {
    aside=''
    for how in old damaged; do
        free_name "$image.$how"
        [ "$n" = 0 ] || aside="${aside:+$aside or }upper.img.$how.$n"
    done
    [ -z "$aside" ] || warn "the image in $from was set aside, and there was no new one yet: what was written is in $aside"
}

# check_image repairs what needs no decision. With -f it also looks at what was unmounted in good order. Damage is
# told by two bits of the exit status; other numbers are from an e2fsck that does not run.
check_image() {
    command -v e2fsck >/dev/null || return 0
    e2fsck -p "$@" "$image" >"$state/fsck" 2>&1 </dev/null
    how=$?
    [ "$how" -lt 4 ] || [ "$how" -ge 16 ]
}

mount_image() {
    modprobe -q loop 2>/dev/null
    reason="no loop device can be had for the image"
    # The one that is free may be somebody else's by now.
    for free in "$(losetup -f)" /dev/loop0 /dev/loop1 /dev/loop2 /dev/loop3 /dev/loop4 /dev/loop5 /dev/loop6 /dev/loop7; do
        [ -z "$free" ] || ! losetup "$free" "$image" 2>/dev/null || { loop=$free && break; }
    done
    [ -n "$loop" ] || return
    reason=''
    mount -t ext4 -o noatime "$loop" "$rw" && return
    drop
    reason="the image in $from cannot be mounted"
    return 2
}

# drop lets go of what is in use for an upper.
drop() {
    umount "$rw" 2>/dev/null
    [ -z "$loop" ] || losetup -d "$loop"
    loop=''
}

use_image() {
    mount_image
    how=$?
    [ "$how" = 2 ] || return "$how"
    warn "$reason: it is set aside, and a new one made"
    renew damaged && mount_image
}

set_aside() {
    warn "the image in $from is damaged beyond what can be repaired by itself: it is set aside, and a new one made"
    renew damaged
}

set_up_loop() {
    loop=''
    mount_home && open_store && lock || return
    note owned yes # what is in "next" is this node's to say, and to obey
    take_next "$dir/next" || return
    image=$dir/upper.img
    [ -e "$image" ] || ! [ -e "$image.new" ] || tell_aside
    rm -f "$image.new"
    if [ -L "$image" ] || { [ -e "$image" ] && ! [ -f "$image" ]; }; then
        reason="upper.img in $from is no file" && return 1
    fi
    if ! [ -e "$image" ]; then
        renew clear || return
    elif [ "$mode" != keep ]; then
        renew "$mode" || return
    elif ! check_image; then
        set_aside || return
    fi
    use_image || return
    over
    if stale; then
        drop
        renew "$policy" && use_image || return
        over
    fi
    if ! begin; then
        drop
        check_image -f || set_aside || return
        use_image || return
        over
        begin || { reason="nothing can be written to the image in $from" && return 1; }
    fi
    done_next "$dir/next"
}

# A disk of the node's own.

find_device() {
    case $what in
        LABEL=*) device=/dev/disk/by-label/${what#*=} ;;
        UUID=*) device=/dev/disk/by-uuid/${what#*=} ;;
        /dev/*) device=$what ;;
        *) reason="$what is no device: want LABEL=, UUID= or /dev/" && return 1 ;;
    esac
    left=100
    while ! [ -b "$device" ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { reason="there is no device $what" && return 1; }
        sleep 0.1 2>/dev/null || sleep 1
    done
    note device "$device"
}

set_up_device() {
    find_device || return
    if command -v e2fsck >/dev/null; then
        e2fsck -p "$device" >"$state/fsck" 2>&1 </dev/null
        # Without the bit for damage it may be no ext4 at all, which e2fsck does not tell apart.
        [ $(($? & 4)) = 0 ] || { reason="$what is damaged: it needs e2fsck by hand" && return 1; }
    fi
    mount -o noatime "$device" "$rw" || { reason="$what cannot be mounted: it needs a file system of Linux, such as mkfs.ext4 makes" && return 1; }
    take_next "$rw/rootnfsd/next" || return
    if ! [ -f "$rw/rootnfsd/version" ]; then # no node has used it: what is there is somebody's
        for p in "$rw/upper" "$rw/work" "$rw/upper.gone"; do
            if [ -e "$p" ] || [ -L "$p" ]; then
                reason="on $what there is something named ${p##*/} that no node made: rename it, or use another file system"
                return 1
            fi
        done
    fi
    over
    rm -rf "$rw/upper.gone"
    policy=$mode
    [ "$mode" != keep ] || stale
    case $policy in
        clear) away=$rw/upper.gone ;;
        move) free_name "$rw/upper.old" && away=$name ;;
    esac
    if [ "$policy" != keep ] && [ -d "$rw/upper" ]; then
        reason="nothing can be written to $what: it may be damaged, or read-only"
        rm -rf "$rw/work" || return # overlayfs may have an index of the old upper there
        mv "$rw/upper" "$away" || return
        made_over='' reason=''
        [ "$policy" = move ] && prune "$rw/upper.old"
        rm -rf "$rw/upper.gone"
    fi
    begin || { reason="nothing can be written to $what: it may be full, or read-only" && return 1; }
    done_next "$rw/rootnfsd/next"
}

# Memory.

set_up_tmpfs() {
    reason="no tmpfs of $size can be mounted"
    mount -t tmpfs -o "mode=0755,size=$size" root-rw "$rw" && mkdir "$rw/upper" "$rw/work"
}

set_up_zram() {
    command -v mke2fs >/dev/null || { reason="zram needs mke2fs in the initramfs" && return 1; }
    reason="there is no zram here"
    modprobe -q zram 2>/dev/null
    # One of its own: zram0, which comes with the module, may be meant for swap.
    { read -r n </sys/class/zram-control/hot_add; } 2>/dev/null || return
    case $size in
        *%)
            while read -r key kib _; do
                [ "$key" != MemTotal: ] || capacity=$((kib * ${size%?} / 100))K
            done </proc/meminfo
            ;;
        *) capacity=$size ;;
    esac
    reason="no file system of $size can be made on zram"
    if echo "$capacity" >"/sys/block/zram$n/disksize" &&
        mke2fs -q -F -t ext4 -O ^has_journal -m 0 -E nodiscard "/dev/zram$n" >/dev/null 2>&1 </dev/null &&
        mount -t ext4 -o noatime,discard "/dev/zram$n" "$rw" &&
        mkdir "$rw/upper" "$rw/work"; then
        note device "/dev/zram$n"
        return
    fi
    umount "$rw" 2>/dev/null
    echo "$n" >/sys/class/zram-control/hot_remove
    return 1
}

# The root.

# undo_overlayroot takes away what overlayroot has laid over the root, which comes before this.
undo_overlayroot() {
    mounted "$root"
    [ "$type" = overlay ] && mounted "$root$ro" || return 0
    mkdir -p "$ro"
    move_mount "$root$ro" "$ro" || return
    umount "$root$rw"
    umount "$root" || umount -l "$root"
    move_mount "$ro" "$root"
}

lay_over() {
    modprobe -q overlay 2>/dev/null
    move_mount "$root" "$ro" || { reason="the root cannot be moved" && return 1; }
    why=$(mount -t overlay -o "lowerdir=$ro,upperdir=$rw/upper,workdir=$rw/work" rootnfsd-overlay "$root" 2>&1) && return
    reason="no overlay can be mounted: $why"
    move_mount "$ro" "$root"
    return 1
}

# take_along makes $1 seen at the same place of the new root.
take_along() {
    mkdir -p "$root$1" && move_mount "$1" "$root$1"
}

# finish makes what is below and above the root visible, and keeps systemd from mounting the root once more as
# fstab says.
finish() {
    if [ -L "$root/media" ] || ! [ -d "$root/media" ]; then
        rm -f "$root/media"
        mkdir "$root/media"
    fi
    for p in "$ro" "$rw" "$home"; do
        [ ! -L "$root$p" ] || rm -f "$root$p"
        ! mounted "$p" || take_along "$p"
    done
    fstab=$root/etc/fstab
    if [ -f "$fstab" ] && ! [ -L "$root/etc" ] && ! [ -L "$fstab" ] && grep -q '^[^#[:space:]][^[:space:]]*[[:space:]]\{1,\}/[[:space:]]' "$fstab"; then
        sed 's|^\([^#[:space:]][^[:space:]]*[[:space:]]\{1,\}/[[:space:]]\)|#rootnfsd-overlay: \1|' "$fstab" >"$fstab.new" && sync &&
            mv "$fstab.new" "$fstab"
    fi
}

read_words
[ -n "${wanted+set}" ] || exit 0
mkdir -p "$state"
: >"$state/status"
note wanted "$wanted"
reason='' loop='' disabled=''
parse || kind=none
undo_overlayroot
find_version
note version "$version"
mounted "$root"
note root "$source"
if [ "$kind" = off ]; then
    note mode off
    exit 0
fi

mkdir -p "$ro" "$rw"
done=''
for kind in "$kind" fallback; do
    [ "$kind" != fallback ] || size=50%
    case $kind in
        tmpfs | fallback) set_up_tmpfs ;;
        zram) set_up_zram ;;
        loop) set_up_loop ;;
        device) set_up_device ;;
        none) false ;;
    esac && lay_over && done=yes && break
    drop
    [ "$kind" = fallback ] || [ -n "$disabled" ] || warn "${reason:-the overlay cannot be made}. What is written is in memory, and lost at the next boot"
done
if [ -z "$done" ]; then
    warn "$reason. Nothing can be written on this node"
    note mode none
    exit 0
fi

case $kind in
    loop | device) note made_over "$made_over" ;;
    *) note size "$size" ;;
esac
[ "$kind" != fallback ] || kind=tmpfs
note mode "$kind"
finish
case $kind in
    tmpfs | zram) echo "rootnfsd-overlay: what is written is in memory ($size at most)" ;;
    loop) echo "rootnfsd-overlay: what is written is in $from/.rootnfsd/upper.img" ;;
    device) echo "rootnfsd-overlay: what is written is on $what" ;;
esac
exit 0
