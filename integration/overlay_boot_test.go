package integration

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// overlayNode is a node whose overlay is that of rootnfsd, with a server.
type overlayNode struct {
	golden *lab.Golden
	net    *lab.Net
	homes  string // directory of the server
}

// newOverlayNode serves a root that has the node files, and homes: one for each node, or one that is shared.
func newOverlayNode(t *testing.T, shared bool) *overlayNode {
	t.Helper()
	golden := openNodeSide(t)
	n := &overlayNode{golden, newNet(t), t.TempDir()}
	args := []string{"--export", golden.Store, "--home", n.homes, "--allow", lab.ServerAddress + "/24", "--admin", lab.ServerAddress + ":2050"}
	if shared {
		makeImageDir(t, n.homes)
		args = append(args, "--home-layout", "shared")
	} else {
		skel := t.TempDir()
		makeSkeleton(t, skel)
		makeImageDir(t, skel)
		args = append(args, "--home-skel", skel)
	}
	cli(t, "promote", "v1", "--export", golden.Store)
	serve(t, n.net, args...)
	return n
}

// openNodeSide opens the golden root that has the node files.
func openNodeSide(t *testing.T) *lab.Golden {
	t.Helper()
	require(t, "mmdebstrap", "qemu-system-x86_64", "unshare")
	golden, err := lab.OpenNodeSide(rootnfsd, lab.ServerAddress+":/home")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { golden.Close() })
	return golden
}

// makeImageDir makes the directory that images are kept in. Root of a node is nobody on the server, and that one's it
// has to be.
func makeImageDir(t *testing.T, home string) {
	t.Helper()
	dir := filepath.Join(home, ".rootnfsd")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
}

// machine is one of 512 MB, with more words on its command line.
func (n *overlayNode) machine(t *testing.T, number int, words string) lab.Machine {
	t.Helper()
	m, err := n.net.Node(number)
	if err != nil {
		t.Fatal(err)
	}
	m = withKernel(t, n.golden, "v1", m)
	m.Memory = 512
	m.Append += " " + words
	return m
}

// with returns the machine with other words for the overlay.
func with(m lab.Machine, words string) lab.Machine {
	before, _, _ := strings.Cut(m.Append, "rootnfsd.overlay=")
	m.Append = before + words
	return m
}

// expectStatus looks at what rootnfsd-overlay status says for parts of it, by the words at the beginning of its
// lines. An empty part is that it does not say anything.
func expectStatus(t *testing.T, g *lab.Guest, want map[string]string) {
	t.Helper()
	out := in(t, g, "rootnfsd-overlay status")
	said := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		said[key] = strings.TrimSpace(value)
	}
	for key, part := range want {
		if got := said[key]; !strings.Contains(got, part) || part == "" && got != "" {
			t.Errorf("the status says of %s %q; want %q:\n%s", key, got, part, out)
		}
	}
}

// fillUp writes more than the upper takes, and looks whether the node goes on.
func fillUp(t *testing.T, g *lab.Guest) {
	t.Helper()
	out := in(t, g, `dd if=/dev/urandom of=/var/full bs=1M count=600 2>&1 | grep -o "No space left on device"; rm /var/full
		systemctl is-system-running; echo on >/var/tmp/goes && cat /var/tmp/goes`)
	if out != "No space left on device\nrunning\non\n" {
		t.Errorf("a write that exceeds the upper: %q; want that there is no space left, and that the node goes on", out)
	}
}

const (
	// change adds, changes and removes something on a node.
	change = "mkdir -p /opt/x && echo changed >/opt/x/note && echo more >>/etc/issue && rm -r /etc/version-marker /usr/share/lab/odd && mkdir /usr/share/lab/odd && echo new >/usr/share/lab/odd/new"
	// look prints what of that is there.
	look = "cat /opt/x/note 2>/dev/null; tail -n 1 /etc/issue; ls /usr/share/lab/odd | head -n 1; cat /etc/version-marker 2>/dev/null; true"
)

// expectChange looks at whether a node has what change did.
func expectChange(t *testing.T, g *lab.Guest, has bool) {
	t.Helper()
	got := in(t, g, look)
	if has != (got == "changed\nmore\nnew\n") || !has && !strings.HasSuffix(got, "\nv1\n") {
		t.Errorf("after the reboot the node has %q; want that what was changed is there: %v", got, has)
	}
}

// expectDoctor has the node look at itself, and wants that all is well, and that the home
// came when somebody looked.
func expectDoctor(t *testing.T, g *lab.Guest) {
	t.Helper()
	if out, err := tryIn(t, g, "rootnfsd-overlay doctor"); err != nil || !strings.HasSuffix(out, "all is well\n") || !strings.Contains(out, "before the first look: autofs") {
		t.Errorf("the doctor says %v\n%s", err, out)
	}
}

// TestOverlayImage boots a node with its upper in an image on the server, twice.
func TestOverlayImage(t *testing.T) {
	t.Parallel()
	n := newOverlayNode(t, false)
	g := boot(t, n.machine(t, 1, "rootnfsd.overlay=loop:size=100M"))
	expectStatus(t, g, map[string]string{"mode": "image on the server: " + lab.ServerAddress + ":/home", "PROBLEM": "", "next boot": "as the command line says"})
	versions := cliJSON[[]struct{ Digest string }](t, "versions", "--export", n.golden.Store)
	if len(versions) != 1 {
		t.Fatalf("there are the versions %+v; want one", versions)
	}
	expectStatus(t, g, map[string]string{"version": versions[0].Digest[:16]})
	fillUp(t, g)
	expectDoctor(t, g)
	in(t, g, change)
	expectDiff(t, g)
	if os.Getenv("ROOTNFSD_TEST_LONG") != "" { // TestOverlayHook boots twice every day, without a machine
		reboot(t, g, g.Machine())
		expectChange(t, g, true)
		expectStatus(t, g, map[string]string{"mode": "image on the server", "PROBLEM": "", "made over": ""})
		expectDiff(t, g)
	}
	nodes := cliJSON[[]struct{ Address, Good string }](t, "nodes", "--export", n.golden.Store)
	if len(nodes) != 1 || nodes[0].Good == "" {
		t.Errorf("the server knows of %+v; want that the node said that it is well", nodes)
	}
}

// expectDiff looks at what a node says that it changed.
func expectDiff(t *testing.T, g *lab.Guest) {
	t.Helper()
	out := in(t, g, "rootnfsd-overlay diff")
	for _, want := range []string{"A /opt/x/", "A /opt/x/note", "M /etc/issue", "D /etc/version-marker", "D /usr/share/lab/odd/fifo", "A /usr/share/lab/odd/new", "D /usr/share/lab/odd/mode-3777/"} {
		if !strings.Contains("\n"+out, "\n"+want+"\n") {
			t.Errorf("the difference lacks %q:\n%s", want, out)
		}
	}
	for _, not := range []string{"/etc/passwd", "/media", " /etc/\n", " /usr/share/lab/odd/\n"} {
		if strings.Contains(out, not) {
			t.Errorf("the difference has %q, which is as it was:\n%s", not, out)
		}
	}
	if got := in(t, g, "rootnfsd-overlay diff /opt"); got != "A /opt/x/\nA /opt/x/note\n" {
		t.Errorf("the difference below /opt is %q", got)
	}
}

// TestLongOverlayMemory boots a node whose upper is in memory, twice, though overlayroot had begun something else.
func TestLongOverlayMemory(t *testing.T) {
	long(t, "boots in each mode")
	n := newOverlayNode(t, false)
	g := boot(t, n.machine(t, 1, "rootnfsd.overlay=tmpfs:size=30%"))
	for _, words := range []string{"tmpfs:size=30%", "tmpfs:zram,size=60%"} {
		t.Run(words, func(t *testing.T) {
			if !strings.HasSuffix(g.Machine().Append, words) {
				reboot(t, g, with(g.Machine(), "rootnfsd.overlay="+words))
			}
			size := words[strings.Index(words, "size=")+len("size="):]
			expectStatus(t, g, map[string]string{"mode": "(" + size + " at most)", "PROBLEM": ""})
			var kind string
			var has, all, percent int
			out := in(t, g, "findmnt -no FSTYPE /media/root-rw; df -k --output=size /media/root-rw | tail -n 1; grep MemTotal /proc/meminfo | tr -dc 0-9")
			if _, err := fmt.Sscan(out, &kind, &has, &all); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			fmt.Sscanf(size, "%d", &percent)
			// A file system on zram needs some of it for itself.
			if got := has * 100 / all; got > percent || got < percent*8/10 {
				t.Errorf("the %s has %d of %d KiB of memory, %d %%; want %s", kind, has, all, got, size)
			}
			fillUp(t, g)
			expectDoctor(t, g)
			in(t, g, change)
			expectDiff(t, g)
			if out, err := tryIn(t, g, "rootnfsd-overlay disable"); err == nil || !strings.Contains(out, "node set NODE --cmdline") {
				t.Errorf("disable: %q, %v; want that it says where the mode is from", out, err)
			}
			reboot(t, g, g.Machine())
			expectChange(t, g, false)
		})
	}
	t.Run("off", func(t *testing.T) {
		reboot(t, g, with(g.Machine(), "rootnfsd.overlay=off"))
		expectStatus(t, g, map[string]string{"mode": "off", "PROBLEM": ""})
		if got := in(t, g, "findmnt -no FSTYPE /; touch /x 2>&1; true"); !strings.HasPrefix(got, "nfs\n") || !strings.Contains(got, "Read-only") {
			t.Errorf("the root is %q; want NFS that cannot be written to", got)
		}
		expectDoctor(t, g)
	})
}

// TestLongOverlayImageModes goes through what can become of an image from one boot to the next.
func TestLongOverlayImageModes(t *testing.T) {
	long(t, "boots in each mode")
	n := newOverlayNode(t, false)
	const image = "rootnfsd.overlay=loop:size=100M"
	g := boot(t, n.machine(t, 1, image))
	dir := filepath.Join(n.homes, address(g), ".rootnfsd")
	for _, c := range []struct {
		name   string
		on     string // the node, before it reboots
		words  string
		has    bool // afterwards what was written before
		mode   string
		notice string
	}{
		{"disable", "rootnfsd-overlay disable", image, false, "in memory", ""},
		{"enable", "rootnfsd-overlay enable", image, true, "image", ""},
		{"move", "true", image + ",move", false, "image", ""},
		{"clear", change + " && rootnfsd-overlay clear", image, false, "image", ""},
		{"another version", change, image + " rootnfsd.version=another", false, "image", "moved aside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "disable" {
				in(t, g, change)
			}
			in(t, g, c.on)
			t.Logf("e2fsck said before %s: %s", c.name, in(t, g, "cat /run/rootnfsd-overlay/fsck 2>/dev/null; true"))
			reboot(t, g, with(g.Machine(), c.words))
			expectChange(t, g, c.has)
			expectStatus(t, g, map[string]string{"mode": c.mode, "PROBLEM": "", "notice": c.notice})
		})
	}
	for _, image := range []string{"upper.img.old.1", "upper.img.old.2"} {
		if r := finish(t, exec.Command("debugfs", "-R", "cat /upper/opt/x/note", filepath.Join(dir, image))); r.stdout != "changed\n" {
			t.Errorf("in %s there is %q, %s; want what was written", image, r.stdout, r.stderr)
		}
	}
}

// TestLongOverlayDevice keeps the upper on a disk of the node's own.
func TestLongOverlayDevice(t *testing.T) {
	long(t, "boots in each mode")
	n := newOverlayNode(t, false)
	disk := filepath.Join(t.TempDir(), "disk")
	write(t, disk, "")
	const uuid = "6d9a2f0e-1c35-4e63-9f0a-2b7c1d8e4f50"
	if r := finish(t, exec.Command("mke2fs", "-q", "-t", "ext4", "-L", "upper", "-U", uuid, disk, "100M")); r.status != 0 {
		t.Fatal(r.stderr)
	}
	m := n.machine(t, 1, "rootnfsd.overlay=device:LABEL=upper")
	m.KeptDisks = []string{disk}
	g := boot(t, m)
	expectStatus(t, g, map[string]string{"mode": "disk /dev/disk/by-label/upper", "PROBLEM": ""})
	fillUp(t, g)
	expectDoctor(t, g)
	in(t, g, change)
	expectDiff(t, g)
	reboot(t, g, g.Machine())
	expectChange(t, g, true)
	in(t, g, "rootnfsd-overlay disable")
	expectStatus(t, g, map[string]string{"next boot": "in memory"})
	reboot(t, g, g.Machine())
	expectChange(t, g, false)
	in(t, g, "rootnfsd-overlay enable")
	reboot(t, g, with(g.Machine(), "rootnfsd.overlay=device:UUID="+uuid+",on-change=keep rootnfsd.version=another"))
	expectChange(t, g, true)
	expectStatus(t, g, map[string]string{"mode": "disk", "PROBLEM": "", "notice": "are kept", "made over": "another version"})
}

// TestLongOverlayLock has two nodes with one home.
func TestLongOverlayLock(t *testing.T) {
	long(t, "boots in each mode")
	n := newOverlayNode(t, true)
	const image = "rootnfsd.overlay=loop:size=100M"
	a := boot(t, n.machine(t, 1, image))
	expectStatus(t, a, map[string]string{"mode": "image", "PROBLEM": ""})
	b := boot(t, n.machine(t, 2, image))
	problem := "belongs to the node " + address(a)
	expectStatus(t, b, map[string]string{"mode": "in memory", "PROBLEM": problem})
	if console := b.Console(5000); !strings.Contains(console, problem) {
		t.Errorf("the console does not say %q:\n%s", problem, console)
	}
	reboot(t, a, a.Machine())
	expectStatus(t, a, map[string]string{"mode": "image", "PROBLEM": ""})
}

// TestLongOverlayDraft has a node on a draft of such a root look at itself.
func TestLongOverlayDraft(t *testing.T) {
	long(t, "boots in each mode")
	golden := openNodeSide(t)
	net := newNet(t)
	store, skel := filepath.Join(t.TempDir(), "images"), t.TempDir()
	makeSkeleton(t, skel)
	mkdir(t, store)
	if err := os.Symlink(golden.Tree("v1"), filepath.Join(store, "v1")); err != nil {
		t.Fatal(err)
	}
	at := "--export=" + store
	cli(t, "promote", "v1", at)
	serve(t, net, "--export", store, "--home", t.TempDir(), "--home-skel", skel, "--allow", lab.ServerAddress+"/24")
	cli(t, "node", "set", "pi-01", "--address", lab.NodeAddress(1), at)
	cli(t, "draft", "v2", "--from", "v1", "--node", "pi-01", at)
	m, err := net.Node(1)
	if err != nil {
		t.Fatal(err)
	}
	g := boot(t, draftLine(withKernel(t, golden, "v1", m)))
	if out := in(t, g, "rootnfsd-overlay doctor"); !strings.HasPrefix(out, "OK     / is a draft of a version") || !strings.HasSuffix(out, "all is well\n") {
		t.Errorf("the doctor says\n%s", out)
	}
	if out, err := tryIn(t, g, "rootnfsd-overlay diff"); err == nil || !strings.Contains(out, "nothing to compare") {
		t.Errorf("the difference: %q, %v; want that there is nothing to compare", out, err)
	}
}

// initOverlay is the init of roots whose overlay needs no initramfs.
//
//go:embed initramfs/init-overlay.sh
var initOverlay string

// TestLongInitOverlay boots a root by init-overlay, with the node files for it.
func TestLongInitOverlay(t *testing.T) {
	long(t, "boots in each mode")
	golden := openGolden(t)
	net := newNet(t)
	above, homes, skel := t.TempDir(), t.TempDir(), t.TempDir()
	makeSkeleton(t, skel)
	cli(t, "node-files", "--for", "init-overlay", "--home", lab.ServerAddress+":/home", "--into", above, "--yes")
	program := filepath.Join(above, "usr/sbin/init-overlay")
	write(t, program, initOverlay)
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	sealAbove(t, golden, "init-overlay", above)
	cli(t, "promote", "init-overlay", "--export", golden.Store)
	serve(t, net, "--export", golden.Store, "--home", homes, "--home-skel", skel, "--allow", lab.ServerAddress+"/24")
	m, err := net.Node(1)
	if err != nil {
		t.Fatal(err)
	}
	m = withKernel(t, golden, "v1", m)
	m.Append = strings.Replace(m.Append, "overlayroot=tmpfs", "overlayroot=disabled init=/sbin/init-overlay", 1)
	g := boot(t, m)
	expectDoctor(t, g)
	in(t, g, change)
	expectDiff(t, g)
	if got := in(t, g, "findmnt -no FSTYPE /; findmnt -no FSTYPE /overlay/robase; cat /overlay/robase/etc/version-marker"); got != "overlay\nnfs\nv1\n" {
		t.Errorf("the root is %q; want an overlay over v1", got)
	}
	reboot(t, g, g.Machine())
	expectChange(t, g, false)
	m = g.Machine()
	m.Append += " overlay=disable"
	reboot(t, g, m)
	if got := in(t, g, "findmnt -no FSTYPE /; touch /x 2>&1; true"); !strings.HasPrefix(got, "nfs\n") || !strings.Contains(got, "Read-only") {
		t.Errorf("with overlay=disable the root is %q; want NFS that cannot be written to", got)
	}
}
