#!/bin/sh
# What this node writes over its read-only root, where it is, and what it is.
set -u

state=/run/rootnfsd-overlay
ro=/media/root-ro
rw=/media/root-rw
home=/media/root-home

usage() {
    cat <<'END'
usage: rootnfsd-overlay COMMAND

  status      where what this node writes goes, now and at the next boot
  diff [DIR]  what was added (A), changed (M) and removed (D) against the version
  clear       forget what was written, at the next boot
  disable     leave what was written alone from the next boot on, and write to memory
  enable      use it again from the next boot on, and take back clear
  doctor      look whether root, home, journal and identity are as they should be

The mode is that of the kernel's command line (rootnfsd.overlay=, which the server writes:
rootnfsd node set NODE --cmdline ...).
END
}

die() {
    echo "rootnfsd-overlay: $1" >&2
    exit 1
}

need_root() { [ "$(id -u)" = 0 ] || die "this needs root: sudo rootnfsd-overlay ..."; }

# noted prints the last value of a key that the initramfs noted.
noted() {
    value=''
    if [ -r "$state/status" ]; then
        while IFS= read -r line; do
            case $line in "$1="*) value=${line#*=} ;; esac
        done <"$state/status"
    fi
    printf '%s\n' "$value"
}

# mounted sets source, type and options to those of what is mounted at $1.
mounted() {
    source='' type='' options=''
    while read -r s at t o _; do
        [ "$at" != "$1" ] || source=$s type=$t options=$o
    done </proc/mounts
    [ -n "$type" ]
}

# option prints the value of a mount option in $options.
option() {
    case ,$options, in
        *",$1="*) value=${options##*"$1="} && printf '%s\n' "${value%%,*}" ;;
    esac
}

# find_layers sets upper and lower to the directories that the root is made of, whoever made it: rootnfsd's hook,
# overlayroot or init-overlay.
find_layers() {
    upper='' lower=''
    mounted / && [ "$type" = overlay ] || return 1
    for dir in "$ro" /overlay/robase; do
        ! mounted "$dir" || lower=$dir
    done
    for dir in "$rw/upper" "$rw/overlay" /overlay/rwdata/upper /overlay/rwdata; do
        if [ -d "$dir" ]; then
            upper=$dir
            break
        fi
    done
    [ -n "$lower" ] && [ -n "$upper" ]
}

# status

# used prints what is used of the file system at $1.
used() { df -hP "$1" | { read -r _ && read -r _ size used _ percent _ && echo "$used of $size used ($percent)"; }; }

# next_file sets next to the file that the hook obeys at the next boot. An image may be another node's, and so is that
# file then. Of a disk that is not in use, it is found when that is mounted.
next_file() {
    next=''
    case $(noted wanted) in
        loop*) [ "$(noted owned)" != yes ] || next=$home/.rootnfsd/next ;;
        device*) [ "$(noted mode)" != device ] || next=$rw/rootnfsd/next ;;
    esac
}

status() {
    wanted=$(noted wanted)
    mode=$(noted mode)
    if [ ! -e "$state/status" ]; then
        if mounted / && [ "$type" = overlay ]; then
            echo "mode:      not rootnfsd's: there is no rootnfsd.overlay= on the kernel's command line, and the root is an overlay"
        else
            echo "mode:      none: there is no rootnfsd.overlay= on the kernel's command line"
        fi
        find_layers || return 0
        echo "upper:     $(used "$upper"), in $upper"
        return
    fi
    case $mode in
        tmpfs) echo "mode:      in memory ($(noted size) at most); what is written is lost at the next boot" ;;
        zram) echo "mode:      in memory, compressed ($(noted size) at most); what is written is lost at the next boot" ;;
        loop) echo "mode:      image on the server: $(noted home), .rootnfsd/upper.img" ;;
        device) echo "mode:      disk $(noted device)" ;;
        off) echo "mode:      off: nothing can be written but to what is mounted" ;;
        *) echo "mode:      none: the overlay failed, nothing can be written but to what is mounted" ;;
    esac
    echo "wanted:    rootnfsd.overlay=$wanted"
    if [ -r "$state/status" ]; then
        while IFS= read -r line; do
            case $line in
                problem=*) echo "PROBLEM:   ${line#*=}" ;;
                notice=*) echo "notice:    ${line#*=}" ;;
            esac
        done <"$state/status"
    fi
    next_file
    asked=''
    if [ -z "$next" ]; then
        asked=$(noted asked)
    elif [ "$(id -u)" != 0 ] && ! [ -x "${next%/*}" ]; then
        asked=unknown
    elif [ -r "$next" ]; then
        read -r asked <"$next"
    fi
    case $asked in
        unknown) echo "next boot: only root can see (sudo rootnfsd-overlay status)" ;;
        clear) echo "next boot: cleared" ;;
        disable) echo "next boot: in memory: disabled (rootnfsd-overlay enable)" ;;
        *) echo "next boot: as the command line says" ;;
    esac
    echo "version:   $(noted root), $(noted version)"
    made_over=$(noted made_over)
    [ -z "$made_over" ] || [ "$made_over" = "$(noted version)" ] || echo "made over: $made_over, another version"
    if mounted "$rw"; then
        echo "upper:     $(used "$rw"), in $rw/upper"
    fi
}

# clear, disable, enable

ask() {
    need_root
    wanted=$(noted wanted)
    case $wanted in
        loop* | device*) ;;
        tmpfs*)
            case $1 in
                clear) echo "What this node writes is in memory: the next boot begins anew by itself." && return ;;
            esac
            die "the mode is that of the kernel's command line: change it on the server, rootnfsd node set NODE --cmdline rootnfsd.overlay=..."
            ;;
        *) die "the mode is that of the kernel's command line, which has no rootnfsd.overlay= that lasts: change it on the server, rootnfsd node set NODE --cmdline rootnfsd.overlay=..." ;;
    esac
    next_file
    apart=''
    if [ -z "$next" ] && [ "${wanted%%:*}" = device ] && [ -b "$(noted device)" ]; then
        apart=$state/device
        mkdir -p "$apart"
        mount "$(noted device)" "$apart" || die "$(noted device) cannot be mounted"
        next=$apart/rootnfsd/next
        mkdir -p "$apart/rootnfsd"
    fi
    [ -n "$next" ] || die "the node could not use $wanted when it booted (rootnfsd-overlay status), so nothing can be left there"
    if [ "$1" = enable ]; then
        rm -f "$next"
    else
        # A server that is full says so when a file is closed, which the shell does not tell.
        said=''
        { echo "$1" >"$next.new" && sync && read -r said <"$next.new"; } 2>/dev/null
        if [ "$said" = "$1" ]; then
            mv "$next.new" "$next"
        else
            rm -f "$next.new"
            false
        fi
    fi
    done=$?
    if [ -n "$apart" ]; then
        umount "$apart"
        [ "$done" != 0 ] || echo "asked=$1" >>"$state/status"
    fi
    [ "$done" = 0 ] || die "nothing can be written to $next: it may be full"
    case $1 in
        clear) echo "What was written is forgotten at the next boot. (To take that back: rootnfsd-overlay enable)" ;;
        disable) echo "From the next boot on this node writes to memory; what was written until then stays where it is." ;;
        enable) echo "From the next boot on this node uses what it wrote." ;;
    esac
}

# diff

# show prints a letter and a path, in one line whatever is in the path. What the hook made is no change.
show() {
    case $2 in /media/ | "$ro/" | "$rw/" | "$home/") return ;; esac
    printf '%s %s' "$1" "$2" | LC_ALL=C tr '\001-\037\177' '?'
    echo
}

there() { [ -e "$1" ] || [ -L "$1" ]; }

is_dir() { [ -d "$1" ] && [ ! -L "$1" ]; }

# meta prints kind, mode and owner of what is at $1.
meta() { stat -c '%f %u %g' "$1"; }

differs() {
    [ "$(meta "$1")" = "$(meta "$2")" ] || return 0
    if [ -L "$1" ]; then
        [ "$(readlink "$1")" != "$(readlink "$2")" ]
    elif [ -f "$1" ]; then
        ! cmp -s "$1" "$2"
    elif [ -d "$1" ]; then
        return 1
    else
        [ "$(stat -c '%t %T' "$1")" != "$(stat -c '%t %T' "$2")" ]
    fi
}

# is_whiteout is true of what says that there is nothing: overlayfs makes devices of number 0.
is_whiteout() { [ -c "$1" ] && [ "$(stat -c '%t %T' "$1")" = "0 0" ]; }

# is_hooks is true of the fstab that the hook makes of the version's, so that systemd leaves the root alone: the same sed.
is_hooks() {
    [ "$1" = /etc/fstab ] && [ -f "$lower$1" ] &&
        sed 's|^\([^#[:space:]][^[:space:]]*[[:space:]]\{1,\}/[[:space:]]\)|#rootnfsd-overlay: \1|' "$lower$1" | cmp -s - "$upper$1"
}

# walk compares what is in directory $1, with a slash at its end, in a subshell: it calls itself. What is in the working
# directory is the root without what is mounted in it.
walk() (
    for p in "$upper$1"* "$upper$1".[!.]* "$upper$1"..?*; do
        there "$p" || continue
        name=$1${p##*/}
        if is_whiteout "$p"; then
            continue # below it is seen as missing
        elif ! there "$lower$name"; then
            show A "$name$(! is_dir "$p" || echo /)"
            ! is_dir "$p" || added "$name/"
        elif is_dir "$p" && is_dir "$lower$name"; then
            ! differs "$p" "$lower$name" || show M "$name/"
            walk "$name/"
        else
            ! differs "$p" "$lower$name" || is_hooks "$name" || show M "$name"
            ! is_dir "$p" || added "$name/"
        fi
    done
    # Whatever took it away, a name of the version that the node does not see is removed. Only where the upper has the
    # directory can that be.
    for p in "$lower$1"* "$lower$1".[!.]* "$lower$1"..?*; do
        there "$p" || continue
        name=$1${p##*/}
        there ".$name" || show D "$name$(! is_dir "$p" || echo /)"
    done
)

# added lists all that is in directory $1 of the upper, which the version does not have.
added() (
    for p in "$upper$1"* "$upper$1".[!.]* "$upper$1"..?*; do
        there "$p" || continue
        ! is_whiteout "$p" || continue
        show A "$1${p##*/}$(! is_dir "$p" || echo /)"
        ! is_dir "$p" || added "$1${p##*/}/"
    done
)

diff() {
    need_root
    find_layers || die "the root is no overlay over $ro, so there is nothing to compare"
    dir=${1:-/}
    case $dir in /*) ;; *) die "want a directory from /, such as /etc" ;; esac
    dir=${dir%/}/
    is_dir "$upper$dir" || return 0
    # A bind of the root lacks what is mounted in it, which hides what is below. Nobody else is to see it.
    bare=$state/root
    { mkdir -p "$bare" && mount --bind / "$bare" && cd "$bare" && umount -l "$bare"; } || die "the root cannot be mounted at $bare"
    if is_dir "$lower$dir"; then
        walk "$dir"
    else
        added "$dir"
    fi | LC_ALL=C sort -k 2
}

# doctor

ok() { echo "OK     $1"; }

wrong() {
    bad=$((bad + 1))
    echo "WRONG  $1"
    [ -z "${2:-}" ] || echo "       -> $2"
}

doctor() {
    need_root
    bad=0
    mounted /
    case $type in
        overlay) ok "/ is an overlay ($options)" ;;
        nfs) if [ "$(noted mode)" = off ]; then
            ok "/ is the version itself, read-only, as rootnfsd.overlay=off says"
        elif (: >/.rootnfsd-doctor) 2>/dev/null; then
            rm -f /.rootnfsd-doctor
            ok "/ is a draft of a version ($source): what is written changes it"
        else
            wrong "/ is NFS without an overlay: nothing can be written" "add rootnfsd.overlay=tmpfs, or overlayroot=tmpfs:recurse=0, to the kernel's command line, and see that the initramfs has it (update-initramfs -u in the golden tree)"
        fi ;;
        *) wrong "/ is ${type:-unknown}, not an overlay over NFS" "see that the kernel's command line says root=/dev/nfs" ;;
    esac
    if find_layers; then
        mounted "$lower"
        case $type,$options in
            nfs,*vers=3*) ok "$lower is the version ($source)" ;;
            nfs*) wrong "$lower is NFS, but not version 3" "add v3 to the options of nfsroot=" ;;
            *) wrong "$lower is $type, not NFS" ;;
        esac
        case ,$options, in
            *,ro,*) ;;
            *) wrong "$lower is not mounted read-only: each write is tried at the server, and fails" "add ro to the options of nfsroot=" ;;
        esac
    fi
    problem=$(noted problem)
    if [ -n "$problem" ]; then
        wrong "the overlay is not what was wanted: $problem"
    fi
    notice=$(noted notice)
    [ -z "$notice" ] || echo "NOTE   $notice"
    doctor_upper
    doctor_home
    doctor_journal
    doctor_identity
    if [ "$bad" = 0 ]; then
        echo "all is well"
    else
        echo "$bad WRONG"
        return 1
    fi
}

# doctor_upper looks at how full the upper is.
doctor_upper() {
    [ -n "$upper" ] || return 0
    # shellcheck disable=SC2046 # words
    set -- $(df -kP "$upper" | tail -n 1)
    percent=${5%\%}
    case $percent in '' | *[!0-9]*) return 0 ;; esac
    if [ "$percent" -ge 90 ]; then
        case $(noted mode) in
            loop) larger="begin anew with a larger one: a larger size= on the kernel's command line, and rootnfsd-overlay clear" ;;
            device) larger="make room on the disk $(noted device)" ;;
            zram) larger="make it larger: rootnfsd.overlay=tmpfs:zram,size=..." ;;
            *) larger="make it larger: rootnfsd.overlay=tmpfs:size=..." ;;
        esac
        wrong "the upper is full to $percent %" "see what fills it: rootnfsd-overlay diff; or $larger"
    else
        ok "the upper is full to $percent % ($3 of $2 KiB)"
    fi
    mounted "$rw"
    if [ "$type" = tmpfs ]; then
        while read -r key kib _; do
            [ "$key" != MemTotal: ] || total=$kib
        done </proc/meminfo
        [ "$(($2 * 100))" -le "$((total * 60))" ] || wrong "the upper may take $(($2 * 100 / total)) % of the memory" "rootnfsd.overlay=tmpfs:size=30%"
    fi
}

# doctor_home has somebody's home looked at, and writes a file there.
doctor_home() {
    if ! mounted /home; then
        if [ -e /etc/systemd/system/home.automount ]; then
            wrong "nothing is mounted at /home, though it should be" "systemctl status home-activate.service home.automount"
        elif [ "$(noted mode)" = loop ] || [ "$(noted mode)" = device ]; then
            ok "/home is in the upper, which lasts"
        else
            wrong "nothing is mounted at /home: what is written there is lost" "rootnfsd node-files --home SERVER:/home --into TREE"
        fi
        return
    fi
    before=''
    while read -r _ at t _; do
        [ "$at" != /home ] || before="$before$t "
    done </proc/mounts
    ls /home >/dev/null 2>&1
    mounted /home
    case $type in
        nfs | nfs4) ok "/home is NFS ($source; before the first look: ${before% })" ;;
        *)
            wrong "/home is $type, and no NFS comes when somebody looks" "systemctl status home.mount; is the server up, and does it serve homes (rootnfsd serve --home)?"
            return
            ;;
    esac
    case ,$options, in *,soft,*) wrong "/home is mounted soft: programs get errors while the server is away" "say hard in home.mount" ;; esac
    for dir in /home/*/; do
        [ -d "$dir" ] || continue
        # Root of a node is nobody on the server, so it is the owner who must be able to write.
        who=$(stat -c %U "$dir")
        case $who in root | nobody | UNKNOWN) continue ;; esac
        # shellcheck disable=SC2016 # for the inner shell
        if out=$(runuser -u "$who" -- sh -c 'f=$1.rootnfsd-doctor.$$ && echo well >"$f" && stat -f -c %T "$f" && rm -f "$f"' sh "$dir" 2>&1) && [ "$out" = nfs ]; then
            ok "$who can write to $dir on the server"
        else
            wrong "$who cannot write to $dir: $out" "see docs/homes.md, \"When something does not work\""
        fi
        return
    done
    wrong "no user has a directory in /home" "give serve --home-skel a directory for each user, or make it on the server"
}

doctor_journal() {
    command -v journalctl >/dev/null || return 0
    if [ -n "$(find /var/log/journal -name '*.journal' 2>/dev/null | head -n 1)" ]; then
        wrong "the journal is kept in /var/log/journal, and fills the upper" "Storage=volatile in /etc/systemd/journald.conf.d: rootnfsd node-files --into TREE"
    else
        ok "the journal is in memory"
    fi
}

doctor_identity() {
    id=''
    [ ! -r /etc/machine-id ] || read -r id </etc/machine-id
    low=''
    [ -z "$lower" ] || ! [ -r "$lower/etc/machine-id" ] || read -r low <"$lower/etc/machine-id"
    case $id in
        '' | uninitialized) wrong "/etc/machine-id is empty: services that need one fail" "name the node on the server (rootnfsd node set), or empty /etc/machine-id in the golden tree, so that each boot makes one" ;;
        *)
            # A named node gets its own from the server, which looks like the version's from here.
            if [ "$id" = "$low" ]; then
                ok "the machine-id comes from the server: see that the node has a name there, or all nodes have the same"
            else
                ok "the machine-id is this node's"
            fi
            ;;
    esac
}

case ${1:-} in
    status | doctor)
        [ $# = 1 ] || die "$1 takes no arguments"
        "$1"
        ;;
    clear | disable | enable)
        [ $# = 1 ] || die "$1 takes no arguments"
        ask "$1"
        ;;
    diff)
        [ $# -le 2 ] || die "diff takes one directory"
        diff "${2:-/}"
        ;;
    -h | --help | help) usage ;;
    '') usage >&2 && exit 2 ;;
    *) die "there is no command $1: see rootnfsd-overlay --help" ;;
esac
