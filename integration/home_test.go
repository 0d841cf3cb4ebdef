package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// homeOptions are how guests mount a home: the words of docs/homes.md.
const homeOptions = "nfsvers=3,proto=tcp,nolock,hard"

// homes is a server of homes in a network of its own, and the guests that use them.
type homes struct {
	*lab.Daemon
	net   *lab.Net
	args  []string // of serve
	dir   string   // what --home names
	held  bool     // the server's sockets
	bench *lab.Workbench
	data  string // image of the disk that guests find at /data
}

// serveHomes serves a directory of homes, and no version that matters. Programs,
// which are packages of this checkout, are on each guest's data disk under their
// base names; more are the words of serve behind those that are needed.
func serveHomes(t *testing.T, dir string, programs []string, more ...string) *homes {
	t.Helper()
	return serveHomesTo(t, lab.OpenWorkbench, dir, programs, more...)
}

// serveHomesTo is serveHomes to guests of another workbench.
func serveHomesTo(t *testing.T, open func() (*lab.Workbench, error), dir string, programs []string, more ...string) *homes {
	t.Helper()
	require(t, "mmdebstrap", "mke2fs", "qemu-system-x86_64")
	h := &homes{net: newNet(t), dir: dir}
	disk, store := t.TempDir(), filepath.Join(t.TempDir(), "images")
	for _, p := range programs {
		if _, err := lab.BuildProgram(disk, p); err != nil {
			t.Fatal(err)
		}
	}
	h.data = filepath.Join(t.TempDir(), "data")
	if err := lab.MakeDisk(h.data, disk); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.bench, err = open(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(store, "v1"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.args = append([]string{"--export", store, "--home", dir, "--allow", lab.ServerAddress + "/24"}, more...)
	h.Daemon = serve(t, h.net, h.args...)
	return h
}

// boot boots so many guests, which have no home mounted yet.
func (h *homes) boot(t *testing.T, count int) []*lab.Guest {
	t.Helper()
	var nodes []*lab.Guest
	for n := range count {
		m, err := h.net.Node(n + 1)
		if err != nil {
			t.Fatal(err)
		}
		if m, err = h.bench.Boot(m, h.data); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, power(t, m))
	}
	for n, g := range nodes {
		in(t, g, fmt.Sprintf("ip address add %s/24 dev eth0", lab.NodeAddress(n+1)))
	}
	return nodes
}

// mountHome mounts the home of a guest at /tmp/home.
func mountHome(t *testing.T, g *lab.Guest) {
	t.Helper()
	in(t, g, fmt.Sprintf("mkdir -p /tmp/home && mount -t nfs -o %s %s:/home /tmp/home", homeOptions, lab.ServerAddress))
}

// TestHomeMount has two nodes write to homes of their own by the kernel's client.
func TestHomeMount(t *testing.T) {
	h := serveHomes(t, t.TempDir(), nil, "--home-squash", "none")
	for n, g := range h.boot(t, 2) {
		mountHome(t, g)
		in(t, g, fmt.Sprintf("echo %d >/tmp/home/who && chown 1000:1000 /tmp/home/who && sync /tmp/home/who && umount /tmp/home", n))
	}
	for n := range 2 {
		got, err := os.ReadFile(filepath.Join(h.dir, lab.NodeAddress(n+1), "who"))
		if err != nil || string(got) != fmt.Sprintln(n) {
			t.Errorf("node %d: %q, %v", n+1, got, err)
		}
	}
}
