package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

const (
	fleetSize = 1000
	// Half of the nodes have names, each tenth of those a label.
	namedNodes = 500
	labelEvery = 10
)

// TestFleet has a thousand nodes mount, boot and read while versions are promoted, taken back
// and pinned at random, and while the server is killed: each mount gets what its node was
// promised at that moment, and no node that is up ever sees another version.
func TestFleet(t *testing.T) {
	versions := []string{"v1", "v2", "v3"}
	trees := map[string]files{}
	for _, v := range versions {
		trees[v] = files{"etc/issue": v}
	}
	store := newStore(t, trees)
	f := &fleet{t: t, store: store, at: "--export=" + store, admin: freeAddr(t), model: fleetModel{pins: map[string]string{}}}
	cli(t, "seal", f.at)
	cli(t, "promote", "v1", "--force", f.at)
	f.model.stack = []string{"v1"}
	f.nameSome()
	f.start()
	f.boot(f.nodes)
	f.awaitSaved()

	const rounds = 50
	kills := 0
	for round := range rounds {
		if rand.IntN(4) == 0 {
			kills++
			f.restart()
		}
		f.round()
		if t.Failed() {
			t.Fatalf("after %d rounds", round+1)
		}
	}
	t.Logf("%d boots, %d reads, %d kills", f.boots, f.reads, kills)
	if kills == 0 {
		f.restart()
	}
	f.read(f.nodes)
	f.compareMetrics()
	f.stop() // which saves all
	f.compare()
}

// fleet is nodes, the server that they run on, and a model of what it should do.
type fleet struct {
	t     *testing.T
	store string
	at    string // the flag for the store
	user  uint32 // that the server runs as
	net   byte   // of the nodes of TestDraft and the like
	addr  string
	admin string // where it answers operators; empty if only by its socket
	model fleetModel
	nodes []*fleetNode
	next  int // of nodes, to boot
	serve *exec.Cmd
	log   bytes.Buffer // of the server, to be read when it has ended

	mu           sync.Mutex
	boots, reads int
}

// fleetNode is a node that runs a version.
type fleetNode struct {
	address netip.Addr
	name    string // empty if nobody named it
	labels  []string
	conn    *rpc.Conn
	file    []byte // the handle of /etc/issue
	running string
	booted  time.Time
}

func (n *fleetNode) key() string {
	if n.name != "" {
		return n.name
	}
	return n.address.String()
}

// fleetModel is what was promoted and pinned, in the simplest words.
type fleetModel struct {
	stack   []string
	some    string // the version that some nodes get; empty if there is none
	nodes   []string
	label   bool
	percent float64
	pins    map[string]string
	history []string // of promotions, as "promote v2" and "rollback v2"
}

// promised is what a node gets.
func (m *fleetModel) promised(n *fleetNode) string {
	if v := m.pins[n.key()]; v != "" {
		return v
	}
	h := sha256.Sum256([]byte(n.key()))
	share := float64(binary.BigEndian.Uint32(h[:])) / (1 << 32) * 100
	if m.some != "" && (slices.Contains(m.nodes, n.key()) || m.label && len(n.labels) > 0 || share < m.percent) {
		return m.some
	}
	return m.stack[len(m.stack)-1]
}

func (m *fleetModel) top() string { return m.stack[len(m.stack)-1] }

func (m fleetModel) clone() fleetModel {
	m.stack, m.nodes = slices.Clone(m.stack), slices.Clone(m.nodes)
	pins := map[string]string{}
	for k, v := range m.pins {
		pins[k] = v
	}
	m.pins = pins
	return m
}

func (m *fleetModel) endSome() { m.some, m.nodes, m.label, m.percent = "", nil, false, 0 }

// nameSome makes the nodes, and names half of them.
func (f *fleet) nameSome() {
	csv := "name,address,labels\n"
	for i := range fleetSize {
		n := &fleetNode{address: netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})}
		if i < namedNodes {
			n.name = fmt.Sprintf("pi-%03d", i)
			if i%labelEvery == 0 {
				n.labels = []string{"canary"}
			}
			csv += fmt.Sprintf("%s,%s,%s\n", n.name, n.address, strings.Join(n.labels, " "))
		}
		f.nodes = append(f.nodes, n)
	}
	path := filepath.Join(f.t.TempDir(), "nodes.csv")
	write(f.t, path, csv)
	cli(f.t, "node", "import", path, f.at)
}

// start starts the server, at the same address each time.
func (f *fleet) start(flags ...string) {
	f.t.Helper()
	if f.addr == "" {
		f.addr = freeAddr(f.t)
		f.t.Cleanup(func() {
			f.kill()
			for _, n := range f.nodes {
				n.hangUp()
			}
		})
	}
	f.serve = exec.Command(rootnfsd, "serve", f.at, "--listen", f.addr, "--portmap", "off", "--log-level", "warn")
	f.serve.Args = append(f.serve.Args, flags...)
	if f.admin != "" {
		f.serve.Args = append(f.serve.Args, "--admin", f.admin)
	}
	f.log.Reset()
	f.serve.Stderr = &f.log
	if f.user != 0 {
		f.serve.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: f.user, Gid: f.user}}
	}
	if err := f.serve.Start(); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	for {
		c, err := net.Dial("tcp", f.addr)
		if err == nil {
			c.Close()
			return
		}
		if ctx.Err() != nil {
			f.t.Fatalf("the server does not answer: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// kill ends the server at once: the last lines of its log may be lost.
func (f *fleet) kill() {
	if f.serve.Process.Signal(syscall.SIGKILL) == nil {
		f.serve.Wait()
	}
}

// stop ends the server as systemd does.
func (f *fleet) stop() {
	f.t.Helper()
	if err := errors.Join(f.serve.Process.Signal(syscall.SIGTERM), f.serve.Wait()); err != nil {
		f.t.Error(err)
	}
}

// restart kills the server and starts it again.
func (f *fleet) restart(flags ...string) {
	f.kill()
	f.start(flags...)
}

// each calls do for nodes, several at once.
func (f *fleet) each(nodes []*fleetNode, do func(*fleetNode) error) {
	f.t.Helper()
	work := make(chan *fleetNode)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for n := range work {
				if err := do(n); err != nil {
					f.t.Errorf("%s, running %s: %v", n.key(), n.running, err)
				}
			}
		})
	}
	for _, n := range nodes {
		work <- n
	}
	close(work)
	workers.Wait()
}

// boot has nodes boot what they are promised.
func (f *fleet) boot(nodes []*fleetNode) {
	f.t.Helper()
	f.each(nodes, func(n *fleetNode) error {
		got, err := f.bootOne(n)
		if want := f.model.promised(n); err == nil && got != want {
			err = fmt.Errorf("it booted %s; want %s", got, want)
		}
		return err
	})
}

// bootOne has a node mount as nfsmount does in an initramfs, and returns the version that it got.
func (f *fleet) bootOne(n *fleetNode) (string, error) {
	n.hangUp()
	c, err := n.dial(f.addr)
	if err != nil {
		return "", err
	}
	c.Caller = rpc.Caller{} // no credentials
	dir, err := c.Mount("/images")
	if err != nil {
		return "", err
	}
	c.Caller = rpc.NewCaller(0, 0)
	for _, name := range []string{"etc", "issue"} {
		reply, err := c.Do(1, c.AppendLookup(nil, 1, dir, []byte(name)))
		if err == nil {
			err = reply.Err()
		}
		if err != nil {
			return "", fmt.Errorf("LOOKUP %s: %w", name, err)
		}
		var a rpc.Attr
		handle, ok := reply.Lookup(&a)
		if !ok {
			return "", errors.New("a malformed LOOKUP")
		}
		dir = bytes.Clone(handle)
	}
	n.file = dir
	got, err := n.read(f.addr)
	n.running, n.booted = got, time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boots++
	return got, err
}

func (n *fleetNode) dial(addr string) (*rpc.Conn, error) {
	if n.conn != nil {
		return n.conn, nil
	}
	c, err := rpc.Dial(addr, rpc.Options{Local: n.address, Reserved: true}) // as kernels and nfsmount do
	n.conn = c
	return c, err
}

func (n *fleetNode) hangUp() {
	if n.conn != nil {
		n.conn.Close()
		n.conn = nil
	}
}

// read reads /etc/issue by the handle that the node got when it booted. A connection that
// broke because the server was killed is made again, as a client does, once.
func (n *fleetNode) read(addr string) (string, error) {
	var content string
	var err error
	for range 2 {
		var c *rpc.Conn
		if c, err = n.dial(addr); err != nil {
			return "", err
		}
		var reply *rpc.Reply
		if reply, err = c.Do(2, c.AppendRead(nil, 2, n.file, 0, 16)); err != nil {
			n.hangUp()
			continue
		}
		if err := reply.Err(); err != nil {
			return "", fmt.Errorf("READ: %w", err)
		}
		length, _, ok := reply.Read()
		data, ok2 := reply.Data(length)
		if content = string(data); !ok || !ok2 {
			return "", errors.New("a malformed READ")
		}
		return content, nil
	}
	return "", err
}

// read has nodes read what they booted.
func (f *fleet) read(nodes []*fleetNode) {
	f.t.Helper()
	f.each(nodes, func(n *fleetNode) error {
		got, err := n.read(f.addr)
		if err == nil && got != n.running {
			err = fmt.Errorf("it reads %s", got)
		}
		return err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads += len(nodes)
}

// few returns nodes that have not booted for a while, some of them in turn and the others at random.
func (f *fleet) few(n int) (nodes []*fleetNode) {
	for len(nodes) < n {
		f.next = (f.next + 1 + rand.IntN(7)) % len(f.nodes)
		// Times are kept in seconds.
		if node := f.nodes[f.next]; time.Since(node.booted) > 2*time.Second && !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// round does something with versions while nodes boot, and sees what nodes make of it.
func (f *fleet) round() {
	before := f.model.clone()
	run := f.decide()
	during := f.few(20)
	var booting sync.WaitGroup
	booting.Go(func() {
		f.each(during, func(n *fleetNode) error {
			got, err := f.bootOne(n)
			if old, new := before.promised(n), f.model.promised(n); err == nil && got != old && got != new {
				err = fmt.Errorf("it booted %s while it was promised %s and then %s", got, old, new)
			}
			return err
		})
	})
	run()
	booting.Wait()
	f.boot(f.few(20))
	f.read(f.few(100))
}

// decide changes the model in a way chosen at random, and returns what makes the server follow.
func (f *fleet) decide() (run func()) {
	m := &f.model
	command := func(args ...string) func() { return func() { cli(f.t, append(args, f.at)...) } }
	others := slices.DeleteFunc([]string{"v1", "v2", "v3"}, func(v string) bool { return v == m.top() })
	version := others[rand.IntN(len(others))]
	first, last := rand.IntN(namedNodes-20), 0
	last = first + rand.IntN(20)
	list := fmt.Sprintf("pi-[%03d-%03d]", first, last)
	var names []string
	for i := first; i <= last; i++ {
		names = append(names, fmt.Sprintf("pi-%03d", i))
	}
	switch what := rand.IntN(10); {
	case what < 2:
		m.endSome()
		m.stack = append(m.stack, version)
		m.history = append(m.history, "promote "+version)
		return command("promote", version, "--force")
	case what < 4 && m.some != "":
		m.history = append(m.history, "rollback "+m.some)
		m.endSome()
		return command("rollback")
	case what < 4 && len(m.stack) > 1:
		top := m.top()
		for m.top() == top {
			m.stack = m.stack[:len(m.stack)-1]
		}
		m.history = append(m.history, "rollback "+m.top())
		return command("rollback")
	case what == 4:
		for _, name := range names {
			m.pins[name] = version
		}
		return command("pin", list, version)
	case what == 5:
		for _, name := range names {
			delete(m.pins, name)
		}
		return command("unpin", list)
	}
	if m.some == "" {
		m.some = version
	}
	args := []string{"promote", m.some, "--force"}
	before := *m
	switch rand.IntN(4) {
	case 0:
		m.nodes = append(m.nodes, names...)
		args = append(args, "--nodes", list)
	case 1:
		n := f.nodes[namedNodes+rand.IntN(fleetSize-namedNodes)] // one without a name
		m.nodes = append(m.nodes, n.key())
		args = append(args, "--nodes", n.key())
	case 2:
		m.label = true
		args = append(args, "--label", "canary")
	default:
		part := float64(1 + rand.IntN(30))
		m.percent = max(m.percent, part)
		args = append(args, "--percent", fmt.Sprint(part))
	}
	grown := slices.ContainsFunc(m.nodes, func(n string) bool { return !slices.Contains(before.nodes, n) })
	if grown || m.label != before.label || m.percent != before.percent {
		m.history = append(m.history, "promote "+m.some)
	}
	return command(args...)
}

// awaitSaved waits until all nodes that booted are on the disk, which takes a second or two.
func (f *fleet) awaitSaved() {
	f.t.Helper()
	for range 60 {
		if len(cliJSON[[]nodeRow](f.t, "nodes", f.at)) == fleetSize {
			return
		}
		time.Sleep(time.Second)
	}
	f.t.Fatal("not all nodes are listed")
}

// compare holds what the commands say against the model.
func (f *fleet) compare() {
	var history []string
	for _, e := range cliJSON[[]struct{ Action, Version string }](f.t, "history", f.at) {
		if e.Action == "promote" || e.Action == "rollback" {
			history = append(history, e.Action+" "+e.Version)
		}
	}
	if got, want := fmt.Sprint(history), fmt.Sprint(append([]string{"promote v1"}, f.model.history...)); got != want {
		f.t.Errorf("history: %s; want %s", got, want)
	}
	rows := map[string]nodeRow{}
	for _, r := range cliJSON[[]nodeRow](f.t, "nodes", f.at) {
		key := r.Name
		if key == "" {
			key = r.Address
		}
		rows[key] = r
	}
	if len(rows) != fleetSize {
		f.t.Errorf("%d nodes are listed; want %d", len(rows), fleetSize)
	}
	for _, n := range f.nodes {
		r, promised := rows[n.key()], f.model.promised(n)
		if r.Running != n.running || r.Promised != promised || r.RebootNeeded != (n.running != promised) || r.Address != n.address.String() || r.State == "new" {
			f.t.Errorf("%s runs %s and is promised %s; listed is %+v", n.key(), n.running, promised, r)
		}
	}
}

// nodesMetric is a line of what /metrics tells of nodes.
var nodesMetric = regexp.MustCompile(`(?m)^rootnfsd_nodes{image="images",state="\w+",version="([^"]+)"} (\d+)$`)

// compareMetrics holds what is told of the nodes in numbers to what they are.
func (f *fleet) compareMetrics() {
	status, text := operator{"http://" + f.admin}.ask(f.t, "127.0.0.1", "GET", "/metrics")
	if status != 200 {
		f.t.Fatalf("metrics: %d %s", status, text)
	}
	got, want := map[string]int{}, map[string]int{}
	for _, m := range nodesMetric.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			f.t.Fatal(err)
		}
		if n > 0 {
			got[m[1]] += n
		}
	}
	reboot := 0
	for _, n := range f.nodes {
		want[n.running]++
		if n.running != f.model.promised(n) {
			reboot++
		}
	}
	if !maps.Equal(got, want) {
		f.t.Errorf("the metrics have nodes by version %v; want %v", got, want)
	}
	for _, line := range []string{
		fmt.Sprintf(`rootnfsd_nodes_reboot_needed{image="images"} %d`, reboot),
		fmt.Sprintf(`rootnfsd_promoted{image="images",version=%q} 1`, f.model.stack[len(f.model.stack)-1]),
	} {
		if !strings.Contains(text, line+"\n") {
			f.t.Errorf("the metrics have no line %s", line)
		}
	}
}
