package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// TestHomeUnits has Debian nodes bring up their homes by the systemd units of
// node-files, and from one promote to the next by those that people have who
// come from the kernel's server.
func TestHomeUnits(t *testing.T) {
	golden := openGolden(t)
	net := newNet(t)
	dir, skel := t.TempDir(), t.TempDir()
	makeSkeleton(t, skel)
	units := homeUnits(t, lab.ServerAddress)
	sealWith(t, golden, "units", units)
	const mount = "etc/systemd/system/home.mount"
	units[mount] = replaceLine(t, units[mount], "What=", lab.ServerAddress+":"+dir)
	units[mount] = replaceLine(t, units[mount], "Options=", "rw,nfsvers=3,proto=tcp,noatime,soft,timeo=50,retrans=3,nolock")
	sealWith(t, golden, "kernel-units", units)
	cli(t, "promote", "units", "--export", golden.Store)
	serve(t, net, "--export", golden.Store, "--home", dir, "--home-skel", skel, "--allow", lab.ServerAddress+"/24")

	a := node(t, golden, net, 1, "v1")
	expectHome(t, a, "autofs")
	asUbuntu(t, a, "mkdir -m 700 /home/ubuntu/own && echo first >/home/ubuntu/own/note")
	expectHome(t, a, "autofs nfs")
	expectNote(t, dir, a, "first\n")
	t.Run("what was unmounted comes back", func(t *testing.T) {
		in(t, a, "systemctl stop home.mount")
		expectHome(t, a, "autofs")
		asUbuntu(t, a, "echo second >>/home/ubuntu/own/note")
		expectHome(t, a, "autofs nfs")
		expectNote(t, dir, a, "first\nsecond\n")
	})
	t.Run("root of a node is nobody", func(t *testing.T) {
		if out, err := tryIn(t, a, "ls /home/ubuntu"); err == nil || !strings.Contains(out, "Permission denied") {
			t.Errorf("root lists the home of ubuntu: %q, %v; want that it is denied", out, err)
		}
	})

	cli(t, "promote", "kernel-units", "--export", golden.Store)
	m, err := net.Node(2)
	if err != nil {
		t.Fatal(err)
	}
	b := power(t, withKernel(t, golden, "v1", m)) // while the other one reboots
	reboot(t, a, a.Machine())
	waitUp(t, b)
	if got := asUbuntu(t, a, "cat /home/ubuntu/own/note"); got != "first\nsecond\n" {
		t.Errorf("after a reboot the note is %q; want both lines", got)
	}
	if got := asUbuntu(t, b, "ls -A /home/ubuntu && echo other >/home/ubuntu/note"); got != ".profile\n" {
		t.Errorf("node 2 finds %q in its home; want what the skeleton has", got)
	}
	for _, g := range []*lab.Guest{a, b} {
		expectHome(t, g, "autofs nfs")
		if source := in(t, g, "findmnt -nt nfs -o SOURCE /home"); source != lab.ServerAddress+":"+dir+"\n" {
			t.Errorf("%s has mounted %q; want %s", address(g), source, dir)
		}
	}
	t.Run("the home of another node cannot be mounted", func(t *testing.T) {
		for g, other := range map[*lab.Guest]*lab.Guest{a: b, b: a} {
			for _, path := range []string{"/home/" + address(other), "/home/" + address(other) + "/ubuntu", dir + "/" + address(other)} {
				out, err := tryIn(t, g, fmt.Sprintf("mount -t nfs -o %s %s:%s /mnt", homeOptions, lab.ServerAddress, path))
				if err == nil || !strings.Contains(out, "access denied by server") {
					t.Errorf("%s mounts %s: %q, %v; want that it is denied", address(g), path, out, err)
				}
			}
		}
	})
}

// makeSkeleton makes what a new home looks like, with a directory for user ubuntu.
func makeSkeleton(t *testing.T, skel string) {
	t.Helper()
	write(t, filepath.Join(skel, "ubuntu/.profile"), "umask 027\n")
	for _, path := range []string{"ubuntu", "ubuntu/.profile"} {
		if err := os.Chown(filepath.Join(skel, path), 1000, 1000); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(skel, "ubuntu"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// homeUnits are the units that node-files has for a home on a server.
func homeUnits(t *testing.T, server string) files {
	t.Helper()
	units := nodeFiles(t, "debian", "--home", server+":/home")
	maps.DeleteFunc(units, func(path, _ string) bool { return !strings.HasPrefix(path, "etc/systemd/system/home") })
	return units
}

// TestDocumentedUnits holds docs/homes.md against the units that are installed. The first line of each is a comment
// with its path.
func TestDocumentedUnits(t *testing.T) {
	checkout, err := lab.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(checkout, "docs/homes.md"))
	if err != nil {
		t.Fatal(err)
	}
	told := files{}
	path := ""
	for line := range strings.Lines(string(text)) {
		code, isCode := strings.CutPrefix(line, "    ")
		if p, ok := strings.CutPrefix(code, "# /"); ok && isCode {
			path = strings.TrimSpace(p)
			continue
		}
		if !isCode && line != "\n" {
			path = ""
		}
		if path != "" {
			told[path] += code
		}
	}
	units := homeUnits(t, "server")
	if len(told) != len(units) || len(told) != 3 {
		t.Errorf("docs/homes.md has %d units, and %d are installed; want three", len(told), len(units))
	}
	for path, want := range units {
		if got := strings.TrimRight(told[path], "\n") + "\n"; got != want {
			t.Errorf("docs/homes.md has of %s\n%s\nwhich is\n%s", path, got, want)
		}
	}
}

// sealWith seals golden root v1 with more files, under a name of its own, and
// enables home-activate.service.
func sealWith(t *testing.T, golden *lab.Golden, version string, more files) {
	t.Helper()
	above := t.TempDir()
	for path, text := range more {
		write(t, filepath.Join(above, path), text)
	}
	wants := filepath.Join(above, "etc/systemd/system/multi-user.target.wants")
	mkdir(t, wants)
	if err := os.Symlink("../home-activate.service", filepath.Join(wants, "home-activate.service")); err != nil {
		t.Fatal(err)
	}
	sealAbove(t, golden, version, above)
}

// sealAbove seals golden root v1 with what is in a directory laid over it, under a name of its own.
func sealAbove(t *testing.T, golden *lab.Golden, version, above string) {
	t.Helper()
	merged := t.TempDir()
	if err := syscall.Mount("overlay", merged, "overlay", syscall.MS_RDONLY, "lowerdir="+above+":"+golden.Tree("v1")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	}()
	cli(t, "seal", version, "--from", merged, "--export", golden.Store)
}

// replaceLine replaces what follows prefix in the line that begins with it.
func replaceLine(t *testing.T, text, prefix, value string) string {
	t.Helper()
	before, rest, found := strings.Cut(text, "\n"+prefix)
	_, after, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatalf("no line begins with %s:\n%s", prefix, text)
	}
	return before + "\n" + prefix + value + "\n" + after
}

// expectHome looks at what is mounted at /home, which mounts nothing.
func expectHome(t *testing.T, g *lab.Guest, want string) {
	t.Helper()
	if got := strings.Join(strings.Fields(in(t, g, "findmnt -no FSTYPE /home")), " "); got != want {
		t.Errorf("%s has %q at /home; want %q", address(g), got, want)
	}
}

func asUbuntu(t *testing.T, g *lab.Guest, script string) string {
	t.Helper()
	return in(t, g, fmt.Sprintf("runuser -u ubuntu -- sh -c '%s'", script))
}

// expectNote looks at the note of user ubuntu on the server.
func expectNote(t *testing.T, dir string, g *lab.Guest, want string) {
	t.Helper()
	note := filepath.Join(dir, address(g), "ubuntu/own/note")
	text, err := os.ReadFile(note)
	if err != nil || string(text) != want {
		t.Errorf("on the server the note is %q, %v; want %q", text, err, want)
	}
	for path := note; path != filepath.Join(dir, address(g)); path = filepath.Dir(path) {
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil || st.Uid != 1000 || st.Gid != 1000 {
			t.Errorf("on the server %s belongs to %d:%d, %v; want 1000:1000", path, st.Uid, st.Gid, err)
		}
	}
}
