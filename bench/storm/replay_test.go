package storm

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/bench/relay"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// programDir is where program builds.
var programDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "storm")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programDir = dir
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// program is the rootnfsd that the tests run.
var program = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(programDir, "rootnfsd")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/rootnfsd/rootnfsd/cmd/rootnfsd").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return binary, nil
})

// files are those of the golden tree of the tests.
var files = map[string]int{"/etc/hosts": 100, "/usr/lib/big": 300_000, "/usr/lib/two  words": 0}

// newStore makes a store with one golden tree.
func newStore(t *testing.T) string {
	t.Helper()
	store := filepath.Join(t.TempDir(), "images")
	tree := filepath.Join(store, "v1")
	for path, size := range files {
		file := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.Repeat("x", size)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 500 { // more than fit into one reply
		if err := os.WriteFile(filepath.Join(tree, fmt.Sprintf("usr/lib/many%d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/lib", filepath.Join(tree, "lib")); err != nil {
		t.Fatal(err)
	}
	return store
}

// serve serves a new store, with further arguments, and returns where, and what stops
// it in good order.
func serve(t *testing.T, args ...string) (addr string, stop func()) {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if addr, err = peer.FreeAddr(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, append([]string{"serve", "--export", newStore(t), "--listen", addr, "--portmap", "off"}, args...)...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if t.Failed() {
			t.Log(log.String())
		}
	})
	t.Cleanup(stop)
	// The port is open before the server is ready: a call waits in the queue.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr, stop
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// boot is a boot of some calls, each of which waits for the one before.
func boot() *Trace {
	t := &Trace{}
	add := func(proc Proc, offset uint64, count uint32, path string) {
		t.Calls = append(t.Calls, Call{time.Duration(len(t.Calls)) * time.Millisecond, netip.MustParseAddr("127.1.0.1"), proc, offset, count, path})
	}
	add(Mnt, 0, 0, "/")
	add(Null, 0, 0, "")
	add(Fsinfo, 0, 0, "/")
	add(Getattr, 0, 0, "/")
	add(Lookup, 0, 0, "/lib")
	add(Readlink, 0, 0, "/lib")
	add(Lookup, 0, 0, "/usr")
	add(Lookup, 0, 0, "/usr/lib")
	add(Access, 0, 31, "/usr/lib")
	add(Lookup, 0, 0, "/usr/lib/none")
	add(Lookup, 0, 0, "/usr/lib/..")
	add(Lookup, 0, 0, "/usr/lib/two  words")
	add(Read, 0, 4096, "/usr/lib/two  words")
	add(Read, 4, 4096, "/etc/hosts")
	add(Read, 1<<20, 4096, "/etc/hosts")
	add(Read, 0, 131072, "/usr/lib/big")
	add(Read, 262144, 131072, "/usr/lib/big")
	add(Readdir, 0, 8192, "/usr/lib")
	add(Readdirplus, 0, 32768, "/usr/lib")
	add(Readdirplus, 0, 4096, "/etc")
	add(Getacl, 0, 5, "/etc/hosts")
	add(Fsstat, 0, 0, "/etc")
	add(Pathconf, 0, 0, "/")
	return t
}

func run(t *testing.T, p *Plan, c Config) *Result {
	t.Helper()
	r, err := p.Run(context.Background(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReplay replays a trace, which must bring no errors, and holds what the server
// has recorded of it against the trace.
func TestReplay(t *testing.T) {
	recording := filepath.Join(t.TempDir(), "recording")
	addr, stop := serve(t, "--record", recording)
	trace := boot()
	plan, err := Scout(trace, "/", Config{Target: addr, MountTarget: addr})
	if err != nil {
		t.Fatal(err)
	}
	const flavor = 28 // where that of the credentials is in a call
	if got := plan.mount.call[flavor : flavor+4]; !bytes.Equal(got, []byte{0, 0, 0, wire.AuthNone}) {
		t.Errorf("nodes mount with credentials %x; want none, by which a server knows that they boot", got)
	}
	const nodes = 5
	r := run(t, plan, Config{Target: addr, MountTarget: addr, Nodes: nodes, Think: true})
	const content = 0 + 96 + 0 + 131072 + 300_000 - 262144
	calls := len(trace.Calls) - 1 // MNT is not counted
	if r.Errors != 0 || r.Booted != nodes || r.Calls != uint64(nodes*calls) || r.Bytes != nodes*content || r.Latency.TotalCount() != int64(nodes*calls) {
		t.Errorf("%+v; want %d calls and %d bytes from each of %d nodes, and no errors", r, calls, content, nodes)
	}
	if r.Wall < trace.Calls[calls].At-trace.Calls[1].At-minSleep {
		t.Errorf("it took %v, with think time", r.Wall)
	}
	stop()
	recorded, err := Load(recording)
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		compare(t, recorded.Of(address(i, netip.MustParseAddr("127.0.0.1"))), trace)
	}
	b, err := os.ReadFile(recording)
	if want := fmt.Sprintf("# %d calls, 0 lost\n", len(recorded.Calls)); err != nil || !strings.HasSuffix(string(b), want) {
		t.Errorf("the recording does not end in %q, %v", want, err)
	}
	if len(recorded.Clients()) != nodes+1 { // and the scout
		t.Errorf("clients: %v", recorded.Clients())
	}
}

// compare holds calls against each other, but for times and clients.
func compare(t *testing.T, got, want *Trace) {
	t.Helper()
	text := func(tr *Trace) (lines []string) {
		for _, c := range tr.Calls {
			lines = append(lines, fmt.Sprintf("%s %d %d %q", c.Proc, c.Offset, c.Count, c.Path))
		}
		return lines
	}
	if g, w := text(got), text(want); !slices.Equal(g, w) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(g, "\n"), strings.Join(w, "\n"))
	}
}

// TestRecordKeepsFiles sees a recording that is there refused.
func TestRecordKeepsFiles(t *testing.T) {
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "recording")
	if err := os.WriteFile(file, []byte("dear"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "serve", "--export", newStore(t), "--listen", "127.0.0.1:0", "--portmap", "off", "--record", file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "exists") {
		t.Errorf("%v: %s", err, out)
	}
	if b, _ := os.ReadFile(file); string(b) != "dear" {
		t.Errorf("it holds %q now", b)
	}
}

// TestOtherRoot replays a trace of another tree: what is not there is left out.
func TestOtherRoot(t *testing.T) {
	addr, _ := serve(t)
	trace := &Trace{}
	for i, c := range []Call{
		{Proc: Lookup, Path: "/srv"},
		{Proc: Getattr, Path: "/srv"},
		{Proc: Lookup, Path: "/srv/none"},
		{Proc: Readlink, Path: "/usr"},
		{Proc: Lookup, Path: "/etc/hosts/none"},
		{Proc: Readdirplus, Path: "/usr", Offset: 17, Count: 4096},
		{Proc: Remove, Path: "/usr"},
		{Proc: Getattr, Path: "/etc/hosts"},
	} {
		c.At = time.Duration(i) * time.Second
		trace.Calls = append(trace.Calls, c)
	}
	plan, err := Scout(trace, "/", Config{Target: addr, MountTarget: addr})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Skipped != (Skipped{Missing: 2, Unfit: 3, Writes: 1}) || plan.Calls != 2 {
		t.Errorf("%d calls are kept, left out: %+v", plan.Calls, plan.Skipped)
	}
	if _, err := Scout(&Trace{Calls: trace.Calls[1:3]}, "/", Config{Target: addr, MountTarget: addr}); err == nil {
		t.Error("a trace of which nothing is there makes a storm")
	}
	if _, err := Scout(trace, "/nowhere", Config{Target: addr, MountTarget: addr}); err == nil {
		t.Error("a storm on what cannot be mounted")
	}
}

// TestRelay replays a trace over a relay, which is another process.
func TestRelay(t *testing.T) {
	addr, _ := serve(t)
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	const rtt = 2 * time.Millisecond
	r, err := relay.Start(binary, addr, rtt)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	config := Config{Target: r.Addr, MountTarget: r.Addr, Nodes: 8}
	plan, err := Scout(boot(), "/", config)
	if err != nil {
		t.Fatal(err)
	}
	result := run(t, plan, config)
	if result.Errors != 0 || result.Booted != config.Nodes {
		t.Errorf("%+v", result)
	}
	if least := rtt * time.Duration(len(plan.bursts)); result.Wall < least {
		t.Errorf("it took %v; %d bursts with %v each take %v", result.Wall, len(plan.bursts), rtt, least)
	}
}

// TestBursts looks at what is taken to be in flight together.
func TestBursts(t *testing.T) {
	addr, _ := serve(t)
	trace := &Trace{}
	for _, c := range []struct {
		at   time.Duration
		proc Proc
		path string
	}{
		{0, Getattr, "/"},
		{Window, Lookup, "/usr"},
		{2 * Window, Getattr, "/usr"}, // which a LOOKUP of the burst has asked for
		{3 * Window, Getattr, "/etc"},
		{4*Window + 1, Getattr, "/"},
		{9 * Window, Getattr, "/"},
		{9 * Window, Getattr, "/"},
	} {
		trace.Calls = append(trace.Calls, Call{At: c.at, Proc: c.proc, Path: c.path})
	}
	for _, connections := range []int{1, 2} {
		config := Config{Target: addr, MountTarget: addr, Nodes: 3, Connections: connections, Ramp: time.Millisecond}
		plan, err := Scout(trace, "/", config)
		if err != nil {
			t.Fatal(err)
		}
		var sizes []int
		for _, b := range plan.bursts {
			sizes = append(sizes, b.next-b.first)
		}
		if !slices.Equal(sizes, []int{2, 2, 1, 2}) {
			t.Errorf("bursts of %v calls", sizes)
		}
		r := run(t, plan, config)
		if r.Errors != 0 || r.Calls != 21 {
			t.Errorf("%d connections: %+v", connections, r)
		}
	}
}
