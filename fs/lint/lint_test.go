package lint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-billy/v5"
)

// small is a root that boots: nothing is wrong with it.
var small = files{
	"usr/lib/os-release":            "ID=debian\n",
	"usr/bin/sh":                    "x",
	"usr/sbin/init":                 "-> /lib/systemd/systemd",
	"usr/lib/systemd/systemd":       "x",
	"bin":                           "-> usr/bin",
	"sbin":                          "-> usr/sbin",
	"lib":                           "-> usr/lib",
	"etc/os-release":                "-> ../usr/lib/os-release",
	"etc/passwd":                    "root:x:0:0::/root:/bin/sh\n",
	"etc/machine-id":                "",
	"etc/fstab":                     "# none\n\nproc /proc proc defaults 0 0\n",
	"dev/":                          "",
	"proc/":                         "",
	"run/":                          "",
	"sys/":                          "",
	"media/":                        "",
	"boot/vmlinuz-6.1.0-1-amd64":    bzImage("6.1.0-1-amd64"),
	"boot/initrd.img-6.1.0-1-amd64": cpio(ramdisk("6.1.0-1-amd64")),
	"usr/lib/modules/6.1.0-1-amd64/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
}

// enabled is a unit that is enabled.
func enabled(unit string) files {
	return files{
		"usr/lib/systemd/system/" + unit:                     "[Unit]\n",
		"etc/systemd/system/multi-user.target.wants/" + unit: "-> /lib/systemd/system/" + unit,
	}
}

// ruleCase is a tree and what a rule finds there, as "severity file".
type ruleCase struct {
	rule  string
	what  string
	tree  files
	finds []string
}

func cases() []ruleCase {
	const release = "6.1.0-1-amd64"
	initrd := func(f files) files { return files{"boot/initrd.img-" + release: cpio(f)} }
	wants := "/etc/systemd/system/multi-user.target.wants/"
	return []ruleCase{
		{"no-init", "a container's root", small.without("sbin/init"), []string{"error /sbin/init"}},
		{"no-init", "a link that leads nowhere", small.without("systemd/systemd"), []string{"error /sbin/init"}},
		{"no-init", "files that are no system", files{"etc/os-release": "ID=x\n", "usr/bin/program": "x"}, nil},
		{"no-init", "a link that leads out of the tree", small.without("systemd/systemd").and(files{"usr/sbin/init": "-> ../../../../../../../../../../../bin/sh"}), nil},
		{"no-users", "no passwd", small.without("passwd"), []string{"error /etc/passwd"}},
		{"no-users", "systemd makes it", small.without("passwd").and(files{"usr/lib/sysusers.d/": ""}), nil},
		{"no-mount-points", "no proc", small.without("proc/").without("sys/"), []string{"error /proc"}},
		{"no-mount-points", "all there", small, nil},

		{"kernel-modules", "another kernel", small.and(files{"boot/vmlinuz-" + release: bzImage("6.1.0-2-amd64")}), []string{"warning /boot/vmlinuz-" + release}},
		{"kernel-modules", "a Raspberry Pi's", small.and(files{"boot/firmware/kernel8.img": arm64Image("6.6.31+rpt-rpi-v8")}), []string{"warning /boot/firmware/kernel8.img"}},
		{"kernel-modules", "one that fits", small.and(files{"boot/firmware/kernel8.img": arm64Image(release)}), nil},
		{"kernel-unreadable", "neither is what it is called", small.and(files{"boot/vmlinuz-" + release: "x", "boot/initrd.img-" + release: "x"}),
			[]string{"info /boot/vmlinuz-" + release, "info /boot/initrd.img-" + release}},
		{"kernel-unreadable", "readable", small, nil},
		{"initramfs-missing", "the Pi 5 has none", small.and(files{"boot/firmware/kernel_2712.img": arm64Image(release), "boot/firmware/kernel8.img": arm64Image(release), "boot/firmware/initramfs8": cpio(ramdisk(release))}),
			[]string{"warning /boot/firmware/kernel_2712.img"}},
		{"initramfs-missing", "overlayroot wants one", small.without("initrd").and(files{"etc/overlayroot.conf": ""}), []string{"warning /boot/vmlinuz-" + release}},
		{"initramfs-missing", "none needs one", small.without("initrd"), nil},
		{"initramfs-missing", "none is missing", small.and(files{"boot/vmlinuz-6.0.old": "x"}), nil},
		{"initramfs-other-kernel", "an old one", small.and(initrd(ramdisk("6.1.0-0"))), []string{"error /boot/initrd.img-" + release}},
		{"initramfs-other-kernel", "another one is right", small.and(files{"boot/firmware/kernel8.img": arm64Image(release), "boot/firmware/initramfs8": cpio(ramdisk("5.1"))}),
			[]string{"warning /boot/firmware/initramfs8"}},
		{"initramfs-other-kernel", "it fits", small, nil},
		{"initramfs-no-nfs", "no module", small.and(initrd(ramdisk(release).without("nfsv3.ko"))), []string{"error /boot/initrd.img-" + release}},
		{"initramfs-no-nfs", "no program", small.and(initrd(ramdisk(release).without("nfsmount"))), []string{"error /boot/initrd.img-" + release}},
		{"initramfs-no-nfs", "in the kernel", small.and(initrd(ramdisk(release).without("nfs/"))).and(files{"usr/lib/modules/" + release + "/modules.builtin": "kernel/fs/nfs/nfs.ko\nkernel/fs/nfs/nfsv3.ko\n"}), nil},
		{"initramfs-no-nfs", "nothing is known of the kernel", small.without("lib/modules").and(initrd(ramdisk(release).without("nfsv3.ko").without("builtin"))), []string{"warning /boot/initrd.img-" + release}},
		{"initramfs-no-network", "none", small.and(initrd(ramdisk(release).without("smsc95xx"))), []string{"error /boot/initrd.img-" + release}},
		{"initramfs-no-network", "only what has no cable", small.and(initrd(ramdisk(release).without("smsc95xx").and(files{"lib/modules/" + release + "/kernel/drivers/net/dummy.ko": ""}))), []string{"error /boot/initrd.img-" + release}},
		{"initramfs-no-network", "in the kernel", small.and(initrd(ramdisk(release).without("smsc95xx").and(files{"lib/modules/" + release + "/modules.builtin": "kernel/drivers/net/virtio_net.ko\n"}))), nil},
		{"initramfs-no-overlay", "none", small.and(initrd(ramdisk(release).without("overlay"))), []string{"warning /boot/initrd.img-" + release}},
		{"initramfs-no-overlay", "there", small, nil},
		{"initramfs-modules-dep", "in a drop-in", small.and(files{"etc/initramfs-tools/initramfs.conf": "MODULES=most\n", "etc/initramfs-tools/conf.d/dep": "MODULES=dep\n"}), []string{"warning /etc/initramfs-tools/conf.d/dep"}},
		{"initramfs-modules-dep", "put right in a drop-in", small.and(files{"etc/initramfs-tools/initramfs.conf": "MODULES=dep\n", "etc/initramfs-tools/conf.d/most": "MODULES=\"most\"\n"}), nil},
		{"initramfs-modules-dep", "with a remark behind it", small.and(files{"etc/initramfs-tools/initramfs.conf": "MODULES=dep # or most\n"}), []string{"warning /etc/initramfs-tools/initramfs.conf"}},

		{"fstab-disk", "a Pi's", small.and(files{"etc/fstab": "PARTUUID=12-01 /boot/firmware vfat defaults 0 2\nPARTUUID=12-02 / ext4 defaults 0 1\n/dev/mmcblk0p3 none swap sw 0 0\n"}),
			[]string{"error /etc/fstab", "warning /etc/fstab", "warning /etc/fstab"}},
		{"fstab-disk", "what nobody waits for", small.and(files{"etc/fstab": "LABEL=usb /media/usb ext4 nofail 0 0\n/dev/sda1 /mnt ext4 noauto\n#/dev/sda2 /x ext4\nserver:/home /home nfs defaults\n/dev/nfs / nfs\n"}), nil},
		{"swap", "a file", small.and(files{"var/swap": "x"}), []string{"warning /var/swap"}},
		{"swap", "in fstab", small.and(files{"etc/fstab": "/swap.img none swap sw 0 0\n"}), []string{"warning /etc/fstab"}},
		{"swap", "dphys-swapfile", small.and(enabled("dphys-swapfile.service")), []string{"warning " + wants + "dphys-swapfile.service"}},
		{"swap", "a script of System V", small.and(files{"etc/rc2.d/S01dphys-swapfile": "-> ../init.d/dphys-swapfile", "etc/init.d/dphys-swapfile": "x"}), []string{"warning /etc/rc2.d/S01dphys-swapfile"}},
		{"swap", "a script whose unit is not enabled", small.and(files{"etc/rc2.d/S01dphys-swapfile": "x", "usr/lib/systemd/system/dphys-swapfile.service": "[Unit]\n"}), nil},
		{"swap", "zram", small.and(enabled("zramswap.service")), []string{"info " + wants + "zramswap.service"}},
		{"swap", "masked", small.and(enabled("dphys-swapfile.service")).and(files{"etc/systemd/system/dphys-swapfile.service": "-> /dev/null"}), nil},
		{"swap", "enabled, but not there", small.and(files{"etc/systemd/system/multi-user.target.wants/dphys-swapfile.service": "-> /lib/nothing"}), nil},
		{"cmdline", "a Pi's, before its first boot", small.and(files{"boot/firmware/cmdline.txt": "console=tty1 root=PARTUUID=1-02 rootfstype=ext4 fsck.repair=yes rootwait init=/usr/lib/raspberrypi-sys-mods/firstboot systemd.run=/boot/firstrun.sh\n"}),
			slices.Repeat([]string{"warning /boot/firmware/cmdline.txt"}, 5)},
		{"cmdline", "a node's", small.and(files{"boot/cmdline.txt": "root=/dev/nfs rw nfsroot=10.0.0.1:/images,v3 ip=dhcp init=/sbin/init-overlay"}), nil},

		{"machine-id", "filled", small.and(files{"etc/machine-id": "b08dfa6083e7567a1921a715000001fb\n"}), []string{"warning /etc/machine-id"}},
		{"machine-id", "D-Bus's own", small.and(files{"var/lib/dbus/machine-id": "b08dfa6083e7567a1921a715000001fb\n"}), []string{"warning /var/lib/dbus/machine-id"}},
		{"machine-id", "at the first boot", small.and(files{"etc/machine-id": "uninitialized\n"}), []string{"info /etc/machine-id"}},
		{"machine-id", "none", small.without("machine-id"), []string{"info /etc/machine-id"}},
		{"machine-id", "empty", small.and(files{"var/lib/dbus/machine-id": "-> /etc/machine-id"}), nil},
		{"machine-id", "not of systemd", files{"sbin/init": "x", "bin/sh": "x"}, nil},
		{"ssh-host-keys", "there", small.and(files{"etc/ssh/ssh_host_rsa_key": "x", "etc/ssh/ssh_host_rsa_key.pub": "x"}), []string{"warning /etc/ssh/ssh_host_rsa_key"}},
		{"ssh-host-keys", "none", small.and(files{"etc/ssh/sshd_config": "x"}), nil},

		{"root-interface", "NetworkManager", small.and(enabled("NetworkManager.service")), []string{"warning " + wants + "NetworkManager.service"}},
		{"root-interface", "NetworkManager, told off", small.and(enabled("NetworkManager.service")).and(files{"etc/NetworkManager/conf.d/x.conf": "[keyfile]\nunmanaged-devices=interface-name:wg*,interface-name:eth0\n"}), nil},
		{"root-interface", "Ubuntu's NetworkManager", small.and(enabled("NetworkManager.service")).and(files{"usr/lib/NetworkManager/conf.d/10-globally.conf": "[keyfile]\nunmanaged-devices=*,except:type:wifi\n"}), nil},
		{"root-interface", "NetworkManager, told off about others", small.and(enabled("NetworkManager.service")).and(files{"etc/NetworkManager/NetworkManager.conf": "[keyfile]\nunmanaged-devices=*,except:type:ethernet\n"}), []string{"warning " + wants + "NetworkManager.service"}},
		{"root-interface", "NetworkManager, told off after all", small.and(enabled("NetworkManager.service")).and(files{"usr/lib/NetworkManager/conf.d/x.conf": "[keyfile]\nunmanaged-devices=none\n", "etc/NetworkManager/NetworkManager.conf": "[keyfile]\nunmanaged-devices=type:ethernet\n"}), nil},
		{"root-interface", "NetworkManager, told off by a file that another takes the place of", small.and(enabled("NetworkManager.service")).and(files{"usr/lib/NetworkManager/conf.d/x.conf": "[keyfile]\nunmanaged-devices=type:ethernet\n", "etc/NetworkManager/conf.d/x.conf": ""}), []string{"warning " + wants + "NetworkManager.service"}},
		{"root-interface", "networkd", small.and(enabled("systemd-networkd.service")).and(files{"etc/systemd/network/x.network": "[Match]\nName=e*\n[Network]\nDHCP=yes\n"}), []string{"warning /etc/systemd/network/x.network"}},
		{"root-interface", "networkd, keeping it", small.and(enabled("systemd-networkd.service")).and(files{"etc/systemd/network/x.network": "[Match]\nType=ether\n[Network]\nDHCP=yes\n", "etc/systemd/network/x.network.d/keep.conf": "[Network]\nKeepConfiguration = dhcp\n"}), nil},
		{"root-interface", "networkd with nothing to do", small.and(enabled("systemd-networkd.service")).and(files{"usr/lib/systemd/network/80-container-ve.network": "[Match]\nKind=veth\nName=e*\n", "usr/lib/systemd/network/80-wifi.network": "[Match]\nType=wlan\n", "etc/systemd/network/wg.network": "[Match]\nName=wg0 !eth0\n"}), nil},
		{"root-interface", "networkd, told off first", small.and(enabled("systemd-networkd.service")).and(files{"etc/systemd/network/10.network": "[Match]\nName=eth0 en*\n[Link]\nUnmanaged=yes\n", "usr/lib/systemd/network/90.network": "[Match]\nName=*\n[Network]\nDHCP=yes\n"}), nil},
		{"root-interface", "networkd, with files that it ignores", small.and(enabled("systemd-networkd.service")).and(files{"etc/systemd/network/a.network": "[Network]\nDHCP=yes\n", "etc/systemd/network/b.network": "[Match]\n[Network]\nDHCP=yes\n", "etc/systemd/network/c.network": "", "etc/systemd/network/c.network.d/x.conf": "[Match]\nName=*\n"}), nil},
		{"root-interface", "networkd, with one that it ignores first", small.and(enabled("systemd-networkd.service")).and(files{"etc/systemd/network/a.network": "[Match]\n[Link]\nUnmanaged=yes\n", "etc/systemd/network/x.network": "[Match]\nName=*\n[Network]\nDHCP=yes\n"}), []string{"warning /etc/systemd/network/x.network"}},
		{"root-interface", "networkd that is off", small.and(files{"etc/systemd/network/x.network": "[Match]\nName=*\n"}), nil},
		{"root-interface", "netplan", small.and(files{"usr/sbin/netplan": "x", "etc/netplan/50.yaml": "network:\n  ethernets:\n    eth0:\n      dhcp4: true\n"}), []string{"warning /etc/netplan/50.yaml"}},
		{"root-interface", "netplan, told", small.and(files{"usr/sbin/netplan": "x", "etc/netplan/50.yaml": "network:\n  ethernets:\n    eth0:\n      critical: true\n"}), nil},
		{"root-interface", "netplan, told with a remark", small.and(files{"usr/sbin/netplan": "x", "etc/netplan/50.yaml": "network:\n  ethernets:\n    eth0:\n      critical: yes # the root\n"}), nil},
		{"root-interface", "netplan, for NetworkManager, as Ubuntu's desktop has it", small.and(files{"usr/sbin/netplan": "x", "etc/netplan/01-network-manager-all.yaml": "# Let NetworkManager\nnetwork:\n  version: 2\n  renderer: NetworkManager\n", "etc/netplan/50.yaml": "network:\n  ethernets:\n    eth0: {}\n"}), nil},
		{"root-interface", "netplan, for networkd after all", small.and(files{"usr/sbin/netplan": "x", "usr/lib/netplan/00.yaml": "network:\n  renderer: NetworkManager\n", "etc/netplan/50.yaml": "network:\n  renderer: networkd\n  ethernets:\n    eth0: {}\n"}), []string{"warning /etc/netplan/50.yaml"}},
		{"root-interface", "netplan, for NetworkManager in one case", small.and(files{"usr/sbin/netplan": "x", "etc/netplan/50.yaml": "network:\n  ethernets:\n    eth0:\n      renderer: NetworkManager\n  #ethernets:\n"}), nil},
		{"root-interface", "dhcpcd", small.and(enabled("dhcpcd.service")).and(files{"etc/dhcpcd.conf": "hostname\ninterface wlan0\nnolink\n"}), []string{"warning " + wants + "dhcpcd.service"}},
		{"root-interface", "dhcpcd, told off", small.and(enabled("dhcpcd.service")).and(files{"etc/dhcpcd.conf": "denyinterfaces wlan0,eth*\n"}), nil},
		{"root-interface", "dhcpcd, told off behind commas", small.and(enabled("dhcpcd.service")).and(files{"etc/dhcpcd.conf": ",\n , ,\ndenyinterfaces eth*\n"}), nil},
		{"root-interface", "ifupdown", small.and(enabled("networking.service")).and(files{"etc/network/interfaces": "auto lo\niface lo inet loopback\n", "etc/network/interfaces.d/eth0": "allow-hotplug eth0\niface eth0 inet dhcp\n"}), []string{"warning /etc/network/interfaces.d/eth0"}},
		{"root-interface", "ifupdown, manual", small.and(enabled("networking.service")).and(files{"etc/network/interfaces": "auto eth0\niface eth0 inet manual\niface eth1 inet dhcp\n"}), nil},

		{"journal-persistent", "said so", small.and(files{"etc/systemd/journald.conf": "[Journal]\nStorage=persistent\n"}), []string{"warning /etc/systemd/journald.conf"}},
		{"journal-persistent", "the default", small.and(files{"var/log/journal/": ""}), []string{"info /var/log/journal"}},
		{"journal-persistent", "put right in a drop-in", small.and(files{"var/log/journal/": "", "etc/systemd/journald.conf": "[Journal]\nStorage=persistent\n", "etc/systemd/journald.conf.d/x.conf": "[Journal]\nStorage=volatile\n"}), nil},
		{"journal-persistent", "as the distribution has it", small.and(files{"usr/lib/systemd/journald.conf": "[Journal]\nStorage=persistent\n"}), []string{"warning /usr/lib/systemd/journald.conf"}},
		{"journal-persistent", "in a hidden file", small.and(files{"etc/systemd/journald.conf.d/.x.conf": "[Journal]\nStorage=persistent\n"}), nil},
		{"containers", "all", small.and(files{"usr/bin/dockerd": "x", "usr/bin/containerd": "x", "usr/local/bin/k3s": "x", "usr/lib/snapd/snapd": "x"}),
			[]string{"warning /usr/bin/dockerd", "warning /usr/bin/containerd", "warning /usr/local/bin/k3s", "warning /usr/lib/snapd/snapd"}},
		{"containers", "none", small, nil},
		{"first-boot", "a Pi's", small.and(enabled("regenerate_ssh_host_keys.service")).and(files{"etc/rc3.d/S01resize2fs_once": "x"}),
			[]string{"warning /etc/rc3.d/S01resize2fs_once", "warning " + wants + "regenerate_ssh_host_keys.service"}},
		{"first-boot", "cloud-init", small.and(enabled("cloud-init.service")), []string{"warning " + wants + "cloud-init.service"}},
		{"first-boot", "cloud-init that is off", small.and(enabled("cloud-init.service")).and(files{"etc/cloud/cloud-init.disabled": ""}), nil},
		{"background-updates", "on", small.and(enabled("apt-daily.timer")).and(files{"etc/apt/apt.conf.d/20auto-upgrades": "APT::Periodic::Update-Package-Lists \"1\";\nAPT::Periodic::Unattended-Upgrade \"1\";\n"}), []string{"warning " + wants + "apt-daily.timer"}},
		{"background-updates", "Debian's default: the timer does nothing", small.and(enabled("apt-daily.timer")).and(files{"etc/apt/apt.conf.d/20x": "APT::Periodic::Update-Package-Lists \"0\";\n"}), nil},
		{"background-updates", "in scopes", small.and(enabled("apt-daily.timer")).and(files{"etc/apt/apt.conf.d/20x": "APT {\n  Periodic { // remark; }\n    Verbose \"1\";\n    unattended-upgrade\n      \"1\";\n  };\n};\n"}), []string{"warning " + wants + "apt-daily.timer"}},
		{"background-updates", "in the main file", small.and(enabled("apt-daily.timer")).and(files{"etc/apt/apt.conf": "/* x */ APT::Periodic { Update-Package-Lists always; };", "etc/apt/apt.conf.d/20x": "APT::Periodic::Update-Package-Lists \"0\";\n"}), []string{"warning " + wants + "apt-daily.timer"}},
		{"background-updates", "switched off as a whole", small.and(enabled("apt-daily.timer")).and(files{"etc/apt/apt.conf.d/20x": "APT::Periodic::Update-Package-Lists \"1\";\nAPT::Periodic::Enable \"0\";\n"}), nil},
		{"background-updates", "in what apt does not read", small.and(enabled("apt-daily.timer")).and(files{"etc/apt/apt.conf.d/20x.dpkg-old": "APT::Periodic::Update-Package-Lists \"1\";\n", "etc/apt/apt.conf.d/20x~": "APT::Periodic::Update-Package-Lists \"1\";\n", "etc/apt/apt.conf.d/30": "#APT::Periodic::Update-Package-Lists \"1\";\n/*\nAPT::Periodic::Update-Package-Lists \"1\";\n*/\n"}), nil},
		{"background-updates", "of something else", small.and(enabled("apt-daily.timer")).and(files{"etc/apt/apt.conf": "APT { Other { Periodic { Update-Package-Lists \"1\"; }; }; Update-Package-Lists \"1\"; Periodic::x { Update-Package-Lists \"1\"; }; };"}), nil},

		{"overlayroot-conf", "what it does not know", small.and(files{"etc/overlayroot.conf": "overlayroot_cfgdisk=\"disabled\"\noverlayroot_overlayfs_opts=\"redirect_dir=off\"\noverlayroot=\"tmpfs:size=1G,recurse=0\"\n"}),
			[]string{"warning /etc/overlayroot.conf", "warning /etc/overlayroot.conf"}},
		{"overlayroot-conf", "a home that would be lost", small.and(files{"etc/overlayroot.conf": "overlayroot=tmpfs\n", "etc/fstab": "server:/home /home nfs defaults 0 0\n"}), []string{"warning /etc/overlayroot.conf"}},
		{"overlayroot-conf", "as it should be", small.and(files{"etc/overlayroot.conf": "overlayroot=\"tmpfs:recurse=0,swap=1\"\n", "etc/fstab": "server:/home /home nfs defaults 0 0\n"}), nil},
		{"overlayroot-conf", "with a remark behind it", small.and(files{"etc/overlayroot.conf": "overlayroot=\"tmpfs\" # remark, size=1\n", "etc/fstab": "server:/home /home nfs defaults 0 0\n"}), []string{"warning /etc/overlayroot.conf"}},
		{"overlayroot-conf", "as it should be, with a remark", small.and(files{"etc/overlayroot.conf": "overlayroot='tmpfs:recurse=0' # remark\noverlayroot_fails\n", "etc/fstab": "server:/home /home nfs defaults 0 0\n"}), nil},
		{"overlayroot-conf", "a root that is laid over", small.and(files{"etc/overlayroot.conf": "overlayroot=tmpfs\n", "etc/fstab": "PARTUUID=1-02 / ext4 defaults,noatime 0 1\n"}), nil},
		{"overlayroot-media", "a link", small.without("media").and(files{"etc/overlayroot.conf": "", "media": "-> run/media"}), []string{"warning /media"}},
		{"overlayroot-media", "missing", small.without("media").and(files{"etc/overlayroot.conf": ""}), []string{"info /media"}},
		{"overlayroot-media", "no overlayroot", small.without("media"), nil},
	}
}

// TestRules checks each rule on trees that it finds something in and on trees
// that it must not.
func TestRules(t *testing.T) {
	found, passed := map[string]bool{}, map[string]bool{"file-capabilities": true}
	for _, tc := range cases() {
		t.Run(tc.rule+"/"+tc.what, func(t *testing.T) {
			var got []string
			for _, f := range check(t, treeOf(t, tc.tree)) {
				severity, rest, _ := strings.Cut(f, " ")
				if file, ok := strings.CutPrefix(rest, tc.rule+" "); ok {
					got = append(got, severity+" "+file)
				}
			}
			if !slices.Equal(got, tc.finds) {
				t.Errorf("finds %q; want %q", got, tc.finds)
			}
		})
		if len(tc.finds) > 0 {
			found[tc.rule] = true
		} else {
			passed[tc.rule] = true
		}
	}
	found["file-capabilities"] = true // see TestCapabilities
	for _, r := range Rules() {
		if !found[r.ID] || !passed[r.ID] {
			t.Errorf("%s: positive cases: %v, negative cases: %v; want both", r.ID, found[r.ID], passed[r.ID])
		}
		if r.Looks == "" || r.Reason == "" || r.Fix == "" || r.Severity == 0 {
			t.Errorf("%s is not described: %+v", r.ID, r)
		}
	}
}

// TestClean finds nothing in trees that nothing is wrong with.
func TestClean(t *testing.T) {
	for _, tree := range []files{small, {}, {"etc/hostname": "x"}} {
		if got := check(t, treeOf(t, tree)); len(got) > 0 {
			t.Errorf("finds %q; want nothing", got)
		}
	}
}

// TestCapabilities finds what has file capabilities, but for what cannot be
// executed and for an empty set of them.
func TestCapabilities(t *testing.T) {
	dir := treeOf(t, small.and(files{"usr/bin/ping": "x", "usr/bin/newuidmap": "x", "usr/bin/none": "x", "usr/share/data": "x"}))
	if err := os.Chmod(dir.Root()+"/usr/share/data", 0o644); err != nil {
		t.Fatal(err)
	}
	root := withXattrs{dir, map[string]string{
		"/usr/bin/ping": netRaw, "/usr/bin/newuidmap": netRaw[:12], "/usr/share/data": netRaw, "/usr/bin/none": "\x01\x00\x00\x02" + strings.Repeat("\x00", 16), "/usr/bin/sh": "",
	}}
	findings, err := Check(context.Background(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(findings) != 1 || findings[0].Rule != "file-capabilities" || findings[0].Severity != Warning {
		t.Fatalf("finds %+v; want one finding about capabilities", findings)
	}
	if got, want := fmt.Sprint(findings[0].Files), "[/usr/bin/newuidmap /usr/bin/ping]"; got != want {
		t.Errorf("files %s; want %s", got, want)
	}
	if got := check(t, dir); len(got) > 0 {
		t.Errorf("without attributes finds %q; want nothing", got)
	}
}

// TestHostile makes sure that nothing is followed out of the tree, for ever, or
// into what is no file.
func TestHostile(t *testing.T) {
	tree := files{
		"etc/os-release": "x", "bin/sh": "x", "sbin/init": "-> init", "loop": "-> loop", "etc/fstab": "-> ../../../../../../etc/passwd",
		"etc/machine-id/": "", "boot/vmlinuz-1": "-> /dev/zero", "boot/vmlinuz-2/": "", "etc/systemd/system": "-> system", "lib/modules": "-> ../boot/vmlinuz-2/../../..",
		"etc/passwd": "-> " + strings.Repeat("a/", 2000), "media": "x", "etc/overlayroot.conf/": "",
	}
	got := check(t, treeOf(t, tree))
	want := []string{"error no-init /sbin/init", "error no-users /etc/passwd", "error no-mount-points /dev", "warning overlayroot-media /media"}
	if !slices.Equal(got, want) {
		t.Errorf("finds %q; want %q", got, want)
	}
}

// TestNames makes sure that no name in a tree gets to a terminal as it is, or into
// a command that somebody is told to run.
func TestNames(t *testing.T) {
	const evil = "6.1\x1b[2J$(reboot)"
	findings, err := Check(context.Background(), treeOf(t, small.and(files{
		"boot/vmlinuz-" + evil:          bzImage("6.2"),
		"boot/vmlinuz-x" + evil:         "x",
		"boot/initrd.img-" + evil:       cpio(ramdisk(evil)),
		"boot/initrd.img-x" + evil:      "x",
		"usr/lib/modules/" + evil + "/": "",
		"etc/fstab":                     "/dev/sda1" + evil + " /" + evil + " ext4\n",
		"etc/overlayroot.conf":          "overlayroot_" + evil + "=x\noverlayroot=tmpfs:" + evil + "\n",
		"boot/cmdline.txt":              "init=" + evil,
	})))
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, f := range findings {
		told[f.Rule] = true
		if strings.Contains(f.Reason+f.Fix, "\x1b") || strings.Contains(f.Fix, "$(") {
			t.Errorf("%s: %q, %q", f.Rule, f.Reason, f.Fix)
		}
	}
	for _, rule := range []string{"kernel-modules", "kernel-unreadable", "initramfs-other-kernel", "fstab-disk", "overlayroot-conf", "cmdline"} {
		if !told[rule] {
			t.Errorf("nothing is found by %s", rule)
		}
	}
}

// TestManySettings refuses to read more than a tree has settings: hard links make
// much of one file.
func TestManySettings(t *testing.T) {
	dir := treeOf(t, small.and(enabled("systemd-networkd.service")).and(files{"etc/systemd/network/x.network": "[Match]\nName=eth0\n", "etc/systemd/network/x.network.d/x.conf": strings.Repeat("[Match]\n", maxConfig/8)}))
	for i := range maxConfigs / maxConfig {
		first := dir.Root() + "/etc/systemd/network/x.network.d/"
		if err := os.Link(first+"x.conf", fmt.Sprintf("%s%d.conf", first, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Check(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "more than 16 MiB of settings") {
		t.Errorf("%v; want that it is too much", err)
	}
}

// TestStops returns when it is told to, before or while it looks.
func TestStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Check(ctx, billy.Filesystem(treeOf(t, small))); err != context.Canceled {
		t.Errorf("Check: %v; want %v", err, context.Canceled)
	}
	if _, err := newChecker(ctx, treeOf(t, files{"a/b/c/": ""})).withCapabilities(); err != context.Canceled {
		t.Errorf("looking for capabilities: %v; want %v", err, context.Canceled)
	}
	dir := treeOf(t, small.and(files{"boot/vmlinuz-6.0": "x"}))
	if err := os.Truncate(dir.Root()+"/boot/vmlinuz-6.0", maxUnpacked); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	stopping := &stopping{Filesystem: dir, path: "/boot/vmlinuz-6.0", stop: cancel}
	if _, err := Check(ctx, stopping); !errors.Is(err, context.Canceled) || stopping.read > 1<<20 {
		t.Errorf("Check: %v, after %d bytes of the kernel; want %v", err, stopping.read, context.Canceled)
	}
}

// stopping calls stop when a file is opened, and counts what is read of it.
type stopping struct {
	billy.Filesystem
	path string
	stop func()
	read int
}

func (s *stopping) Open(p string) (billy.File, error) {
	f, err := s.Filesystem.Open(p)
	if p == s.path && err == nil {
		s.stop()
		return counting{f, &s.read}, nil
	}
	return f, err
}

type counting struct {
	billy.File
	n *int
}

func (c counting) Read(b []byte) (int, error) {
	n, err := c.File.Read(b)
	*c.n += n
	return n, err
}
