package lint

import (
	"context"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/overlay"
)

// settings are the files that rules read, by path, with something in each that
// the rules know. Kernels and what is loaded with them have targets of their own.
func settings() files {
	return files{
		"/boot/cmdline.txt":                       "root=PARTUUID=1-02 init=/x systemd.run=/y rootfstype=ext4\n",
		"/boot/firmware/cmdline.txt":              "root=/dev/nfs nfsroot=10.0.0.1:/images\n",
		"/etc/NetworkManager/NetworkManager.conf": "[keyfile]\nunmanaged-devices=*,except:type:ethernet\n",
		"/etc/NetworkManager/conf.d/x.conf":       "[device-x]\nmatch-device=interface-name:eth*\nmanaged=0\n",
		"/etc/apt/apt.conf":                       "APT { Periodic { Unattended-Upgrade \"1\"; }; };\n",
		"/etc/apt/apt.conf.d/20":                  "// x\nAPT::Periodic::Update-Package-Lists \"1\";\n",
		"/etc/dhcpcd.conf":                        "hostname\ndenyinterfaces wlan0,eth*\ninterface eth0\n",
		"/etc/fstab":                              "PARTUUID=1-01 /boot\\040x vfat defaults,nofail 0 2\n/swap none swap sw\nserver:/home /home nfs rw 0 0",
		"/etc/initramfs-tools/conf.d/x":           "MODULES=dep # x\n",
		"/etc/initramfs-tools/initramfs.conf":     "MODULES=\"most\"\n",
		"/etc/machine-id":                         "uninitialized\n",
		"/etc/netplan/x.yaml":                     "network:\n  ethernets:\n    eth0:\n      critical: true # x\n",
		"/etc/network/interfaces":                 "auto lo eth0\niface eth0 inet dhcp\n",
		"/etc/network/interfaces.d/x":             "allow-hotplug eth0\niface eth0 inet manual\n",
		"/etc/overlayroot.conf":                   "overlayroot_x=y\noverlayroot=\"tmpfs:swap=1,size=1G\" # x\n",
		"/etc/overlayroot.local.conf":             "overlayroot='device:dev=LABEL=x,recurse=1'\n",
		FixesPath:                                 "[{\"rule\": \"x\"}]\n",
		"/etc/systemd/journald.conf":              "[Journal]\nStorage=persistent\n",
		"/etc/systemd/journald.conf.d/zz.conf":    "[Journal]\nStorage=auto\n",
		"/etc/systemd/network/x.network":          "[Match]\nName=!wlan* e[mn]*\nType=ether\n[Network]\nKeepConfiguration=no\n",
		"/etc/systemd/network/x.network.d/x.conf": "[Link]\nUnmanaged=yes\n",
		"/etc/systemd/system/" + restoreUnit:      "[Service]\nExecStart=-/usr/sbin/setcap \"cap_net_raw=ep\" /usr/bin/ping\n",
		"/var/lib/dbus/machine-id":                "b08dfa6083e7567a1921a715000001fb\n",
	}
}

// nothing is a source with a root directory alone.
type nothing struct{ billy.Filesystem }

func (nothing) Lstat(p string) (os.FileInfo, error) {
	if p != "/" {
		return nil, os.ErrNotExist
	}
	return source.NewInfo("/", source.Meta{Kind: fs.Directory, Mode: 0o755, Ino: 1, Nlink: 1}), nil
}

func (nothing) Readlink(string) (string, error)       { return "", os.ErrNotExist }
func (nothing) ReadDir(string) ([]os.FileInfo, error) { return nil, nil }
func (nothing) Open(string) (billy.File, error)       { return nil, os.ErrNotExist }

// memoryTree makes a tree as treeOf does, but in memory.
func memoryTree(t testing.TB, f files) *overlay.Overlay {
	t.Helper()
	o := overlay.New(nothing{})
	made := map[string]bool{"/": true}
	var mkdir func(p string)
	mkdir = func(p string) {
		if made[p] {
			return
		}
		mkdir(path.Dir(p))
		if err := o.Mkdir(p); err != nil {
			t.Fatal(err)
		}
		made[p] = true
	}
	for name, content := range f {
		p := path.Clean("/" + name)
		if strings.HasSuffix(name, "/") {
			mkdir(p)
			continue
		}
		mkdir(path.Dir(p))
		var err error
		if target, link := strings.CutPrefix(content, "-> "); link {
			err = o.Link(p, target)
		} else {
			err = o.WriteFile(p, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// enabledTree is a tree in which all is enabled that is configured by settings.
func enabledTree(t testing.TB) *overlay.Overlay {
	tree := small.without("boot/").and(settings()).and(files{"/usr/sbin/netplan": "x", "/usr/sbin/setcap": "x", "/usr/bin/ping": "x", "/usr/bin/fping": "x", "/var/log/journal/": ""})
	for _, unit := range []string{"NetworkManager.service", "systemd-networkd.service", "dhcpcd.service", "networking.service", "apt-daily.timer", "dphys-swapfile.service"} {
		tree = tree.and(enabled(unit))
	}
	return memoryTree(t, tree)
}

// FuzzSettings puts anything into each file of settings, and into the capabilities
// of a program, of a tree in which all that is configured by them is enabled.
// Whatever it is, a tree that was fixed has nothing left to fix.
func FuzzSettings(f *testing.F) {
	base := enabledTree(f)
	names := slices.Sorted(maps.Keys(settings()))
	for i, name := range names {
		f.Add(uint8(i), settings()[name], i%2 == 0)
	}
	f.Add(uint8(len(names)), netRaw, true)
	f.Fuzz(func(t *testing.T, file uint8, content string, restore bool) {
		if len(content) >= maxConfig {
			return // see TestFixLarge
		}
		root := withXattrs{overlay.New(base), map[string]string{"/usr/bin/ping": netRaw}}
		if i := int(file) % (len(names) + 1); i < len(names) {
			if err := root.Filesystem.(*overlay.Overlay).WriteFile(names[i], []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			root.values["/usr/bin/fping"] = content
		}
		check(t, root)
		caps := CapsSetuid
		if restore {
			caps = CapsRestore
		}
		fixed, _, err := Fix(context.Background(), root, caps)
		if err != nil {
			t.Fatal(err)
		}
		if _, again, err := Fix(context.Background(), fixed, caps); err != nil || len(again) > 0 {
			t.Errorf("a fixed tree is fixed again: %q, %v", again, err)
		}
	})
}

// TestLargeSettings reads a megabyte of what the rules know, one to a line or all in
// one, from each file of settings: in time, and telling no more than anybody reads.
func TestLargeSettings(t *testing.T) {
	base := enabledTree(t)
	for name, content := range settings() {
		lines := strings.TrimSuffix(content, "\n") + "\n"
		lines = strings.Repeat(lines, (maxConfig-1)/len(lines))
		for what, large := range map[string]string{"lines": lines, "one line": strings.ReplaceAll(lines, "\n", " "), "commas": strings.ReplaceAll(lines, "\n", ",")} {
			root := overlay.New(base)
			if err := root.WriteFile(name, []byte(large), 0o644); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if n := len(check(t, root)); n > 4*maxFindings {
				t.Errorf("%s, %s: %d findings", name, what, n)
			}
			if _, _, err := Fix(t.Context(), root, CapsRestore); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("%s, %s: took %v", name, what, took)
			}
		}
	}
}
