package integration

import (
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

// newOverlayNode serves a root that has the node files, and homes.
func newOverlayNode(t *testing.T) *overlayNode {
	t.Helper()
	require(t, "mmdebstrap", "qemu-system-x86_64", "unshare")
	golden, err := lab.OpenNodeSide(rootnfsd, lab.ServerAddress+":/home")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { golden.Close() })
	n := &overlayNode{golden, newNet(t), t.TempDir()}
	skel := t.TempDir()
	makeSkeleton(t, skel)
	cli(t, "promote", "v1", "--export", golden.Store)
	// Root of a node is nobody on the server, and that one's has to be the directory of its image.
	own := filepath.Join(skel, ".rootnfsd")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(own, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	serve(t, n.net, "--export", golden.Store, "--home", n.homes, "--home-skel", skel, "--allow", lab.ServerAddress+"/24", "--admin", lab.ServerAddress+":2050")
	return n
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
	m.Append = strings.Replace(m.Append, "overlayroot=tmpfs:recurse=0", "", 1) + " " + words
	return m
}

// nodeStatus is what rootnfsd-overlay status says, by its first words.
func nodeStatus(t *testing.T, g *lab.Guest) map[string]string {
	t.Helper()
	said := map[string]string{}
	for line := range strings.Lines(in(t, g, "rootnfsd-overlay status")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		said[key] = strings.TrimSpace(value)
	}
	return said
}

// expectStatus looks at the status for parts of what it says.
func expectStatus(t *testing.T, g *lab.Guest, want map[string]string) {
	t.Helper()
	said := nodeStatus(t, g)
	for key, part := range want {
		if got := said[key]; !strings.Contains(got, part) || part == "" && got != "" {
			t.Errorf("the status says of %s %q; want %q", key, got, part)
		}
	}
}

// fillUp writes more than the upper takes, as root and as a user, and looks whether the node goes on.
func fillUp(t *testing.T, g *lab.Guest) {
	t.Helper()
	out := in(t, g, `dd if=/dev/zero of=/var/full bs=1M count=600 2>&1 | grep -o "No space left on device"; rm /var/full
		systemctl is-system-running; echo on >/var/tmp/goes && cat /var/tmp/goes`)
	if out != "No space left on device\nrunning\non\n" {
		t.Errorf("a write that exceeds the upper: %q; want that there is no space left, and that the node goes on", out)
	}
}

// TestOverlayImage boots a node with its upper in an image on the server.
func TestOverlayImage(t *testing.T) {
	n := newOverlayNode(t)
	g := boot(t, n.machine(t, 1, "rootnfsd.overlay=loop:size=100M"))
	t.Log(in(t, g, "cat /run/rootnfsd-overlay/*; rootnfsd-overlay status; cat /proc/mounts; rootnfsd-overlay diff; systemd-analyze; cat /proc/meminfo | head -5"))
	t.Log(tryIn(t, g, "rootnfsd-overlay doctor"))
	expectStatus(t, g, map[string]string{"mode": "image on the server", "PROBLEM": "", "next boot": "as the command line says"})
	fillUp(t, g)
	in(t, g, "echo changed >/etc/note; rm /etc/version-marker")
	reboot(t, g, g.Machine())
	if got := in(t, g, "cat /etc/note; ls /etc/version-marker 2>&1"); got != "changed\n" {
		t.Errorf("after a reboot: %q", got)
	}
	t.Log(in(t, g, "cat /run/rootnfsd-overlay/*; rootnfsd-overlay status; rootnfsd-overlay diff"))
	_ = exec.Command
}
