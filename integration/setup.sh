#!/bin/sh
# Installs the Debian packages that the tests and the demo use, where any is missing. With --long also what
# TestLong builds a kernel with; with --check no more than the race detector needs.
set -eu
packages="gcc libc6-dev netbase mmdebstrap qemu-system-x86 iproute2 libnfs-utils nfs-common rpcbind procps e2fsprogs xfsprogs strace nfs-ganesha nfs-ganesha-vfs libarchive-tools squashfs-tools umoci xz-utils zstd bzip2 lz4 libcap2-bin patch fdisk dosfstools mtools cryptsetup-bin gpg gpg-agent prometheus dnsmasq-base kea-dhcp4-server isc-dhcp-server tftpd-hpa tftp-hpa atftp curl busybox ipxe-qemu shellcheck"
case ${1:-} in
    --long) packages="$packages linux-source build-essential flex bison bc libelf-dev xz-utils" ;;
    --check) packages="gcc libc6-dev" ;;
esac

missing=
for package in $packages; do
    dpkg-query --show --showformat '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "not root, and not installed:$missing" >&2
    exit 1
fi
echo "Installing$missing ..."

# A test wants rpcbind's programs, not its daemon: nothing that comes with a package may start.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
# shellcheck disable=SC2086 # a list of words
apt-get install --quiet=2 --yes --no-install-recommends $missing >/dev/null
