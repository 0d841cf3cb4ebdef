package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// TestHomeKilled kills the server over and over while nodes write to their homes.
// A node does what an NFS client owes its programs: it repeats what was not
// answered, and after a COMMIT under another verifier it writes again what the
// server may have lost. So all that was written must be there, and what was
// acknowledged as safe must be there at any time.
func TestHomeKilled(t *testing.T) { killHomesBothWays(t, 100) }

func TestLongHomeKilled(t *testing.T) {
	long(t, "kills the server two thousand times")
	killHomesBothWays(t, 1000)
}

// killHomesBothWays kills a server that opens its own ports, so that connections
// are refused while it is away, and one that gets open ones, where they wait.
func killHomesBothWays(t *testing.T, kills int) {
	require(t, "ip")
	t.Run("own sockets", func(t *testing.T) { killHomes(t, lab.Serve, kills) })
	t.Run("held sockets", func(t *testing.T) { killHomes(t, lab.ServeHeld, kills) })
}

func killHomes(t *testing.T, start startFunc, kills int) {
	const nodes = 4
	net, dir := newNet(t), t.TempDir()
	store := newStore(t, map[string]files{"v1": smallTree})
	d := serveBy(t, start, net, "--export", store, "--home", dir, "--home-ports", "any", "--home-squash", "none")

	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(kills)*5*time.Second)
	var stop atomic.Bool
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	all := make([]*crashNode, nodes)
	for i := range all {
		n := newCrashNode(ctx, net, i)
		all[i] = n
		running.Go(func() {
			if err := n.live(&stop); err != nil {
				t.Errorf("node %s: %v", n.address, err)
				cancel()
			}
		})
	}
	verifiers := newCrashNode(ctx, net, nodes)
	var seen []uint64
	if err := verifiers.mount(); err != nil {
		t.Fatal(err)
	}
	file, err := verifiers.create("file")
	if err != nil {
		t.Fatal(err)
	}
	for range kills {
		v, err := verifiers.commitOnce(file)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(seen, v) {
			t.Fatalf("the verifier %x comes again after a restart: %x", v, seen)
		}
		seen = append(seen, v)
		time.Sleep(rand.N(80 * time.Millisecond))
		if ctx.Err() != nil {
			break // a node has failed
		}
		d.Kill()
		if err := d.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	running.Wait()

	var total crashCounts
	for _, n := range all {
		for _, f := range n.files {
			got, err := os.ReadFile(filepath.Join(dir, n.address.String(), f.name))
			if err != nil || !bytes.Equal(got, f.want) {
				t.Errorf("%s of %s on the host: %d bytes, %v; want other %d", f.name, n.address, len(got), err, len(f.want))
			}
		}
		total.add(n.crashCounts)
	}
	t.Logf("%d kills: %+v", kills, total)
	if !t.Failed() && (total.Safe == 0 || total.Resent == 0 || total.Repeated == 0 || total.Created == 0) {
		t.Error("this test sees nothing")
	}
}

// startFunc is lab.Serve or lab.ServeHeld.
type startFunc = func(ctx context.Context, n *lab.Net, log, binary string, args ...string) (*lab.Daemon, error)

// crashNode is a node that writes to its home over one connection after the other.
type crashNode struct {
	rpc.Caller
	ctx     context.Context
	net     *lab.Net
	address netip.Addr
	rand    *rand.Rand
	root    []byte // handle
	files   []*crashFile

	conn *rpc.Conn
	xid  uint32
	cut  bool // a connection has been cut since the last look at the files
	crashCounts
}

// crashCounts say what happened.
type crashCounts struct {
	Written  int // WRITEs that were acknowledged
	Safe     int // of these, as safe
	Resent   int // WRITEs that were made again because of another verifier
	Repeated int // calls that had no answer when the connection was cut
	Created  int // files
}

func (c *crashCounts) add(d crashCounts) {
	c.Written += d.Written
	c.Safe += d.Safe
	c.Resent += d.Resent
	c.Repeated += d.Repeated
	c.Created += d.Created
}

// crashFile is a file and what must be in it.
type crashFile struct {
	name   string
	handle []byte
	want   []byte // what was written
	safe   []byte // what was there when all was acknowledged as safe, and what was since then
	since  []*piece
}

// piece is a part of a file that was written since all of it was safe.
type piece struct {
	off      int
	data     []byte
	verifier uint64 // of the last WRITE of it
	safe     bool
}

// Sizes in bytes.
const (
	crashFileSize  = 200 << 10
	crashWriteSize = 12 << 10
	crashLargeSize = 64 << 10 // and more: such data goes through a pipe in the server
	crashReadSize  = 32 << 10 // which rpc.Reply keeps
)

// Files of a node that are written to at the same time.
const crashFiles = 3

func newCrashNode(ctx context.Context, net *lab.Net, number int) *crashNode {
	return &crashNode{
		Caller: rpc.NewCaller(0, 0), ctx: ctx, net: net,
		address: netip.AddrFrom4([4]byte{127, 0, 0, byte(10 + number)}),
		rand:    rand.New(rand.NewPCG(rand.Uint64(), uint64(number))),
		xid:     uint32(number) << 28,
	}
}

// live writes to files until stop says so, and then until all is safe.
func (n *crashNode) live(stop *atomic.Bool) error {
	if err := n.mount(); err != nil {
		return err
	}
	for !stop.Load() && n.ctx.Err() == nil {
		if err := n.step(); err != nil {
			return err
		}
	}
	for _, f := range n.files {
		if err := errors.Join(n.commit(f), n.check(f)); err != nil {
			return err
		}
	}
	return nil
}

// open are the files that are written to.
func (n *crashNode) open() []*crashFile { return n.files[max(0, len(n.files)-crashFiles):] }

func (n *crashNode) step() error {
	if n.cut {
		n.cut = false
		for _, f := range n.open() {
			if err := n.check(f); err != nil {
				return err
			}
		}
	}
	if len(n.files) < crashFiles {
		return n.createNext()
	}
	f := n.open()[n.rand.IntN(crashFiles)]
	switch r := n.rand.IntN(100); {
	case r < 2:
		// The one that is not written to any more must be safe.
		if err := n.commit(n.open()[0]); err != nil {
			return err
		}
		return n.createNext()
	case r < 15:
		if err := n.commit(f); err != nil {
			return err
		}
		return n.check(f)
	case r < 30:
		return n.commit(f)
	case r < 35:
		return n.check(f)
	}
	return n.writeAll(n.open())
}

// writeAll writes a piece of each file, all at the same time.
func (n *crashNode) writeAll(files []*crashFile) error {
	var calls []*crashCall
	for _, f := range files {
		how := rpc.Unstable
		if n.rand.IntN(4) == 0 {
			how = rpc.FileSync - rpc.Stability(n.rand.IntN(2)) // or DATA_SYNC
		}
		size := 1 + n.rand.IntN(crashWriteSize)
		if n.rand.IntN(8) == 0 {
			size = crashLargeSize + 4*(1+n.rand.IntN(crashWriteSize))
		}
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(n.rand.Uint32())
		}
		off := n.rand.IntN(crashFileSize - len(data))
		f.want = overwrite(f.want, off, data)
		p := &piece{off: off, data: data}
		f.since = append(f.since, p)
		calls = append(calls, n.write(f, p, how))
	}
	return n.ask(calls...)
}

// write returns a WRITE of a piece.
func (n *crashNode) write(f *crashFile, p *piece, how rpc.Stability) *crashCall {
	return n.call(n.AppendWrite(nil, n.newXID(), f.handle, uint64(p.off), p.data, how), func(r *rpc.Reply) error {
		count, committed, verifier, ok := r.Written()
		if !ok || count != len(p.data) || committed < how {
			return fmt.Errorf("WRITE of %d bytes, %d: wrote %d, %d, well-formed %v", len(p.data), how, count, committed, ok)
		}
		n.Written++
		p.verifier = verifier
		if committed != rpc.Unstable {
			n.Safe++
			p.safe = true
			f.safe = overwrite(f.safe, p.off, p.data)
			for _, older := range f.since {
				older.cover(p)
			}
		}
		return nil
	})
}

// commit returns when all that was written to a file is safe.
func (n *crashNode) commit(f *crashFile) error {
	for {
		v, err := n.commitOnce(f)
		if err != nil {
			return err
		}
		var calls []*crashCall
		for _, p := range f.since {
			if p.safe || p.verifier == v {
				continue
			}
			// A client writes again what it has, which is the newest.
			again := &piece{off: p.off, data: bytes.Clone(f.want[p.off:][:len(p.data)])}
			f.since = append(f.since, again)
			p.safe = true // or rather, it is not asked for any more
			calls = append(calls, n.write(f, again, rpc.Unstable))
		}
		if len(calls) == 0 {
			f.safe, f.since = bytes.Clone(f.want), nil
			return nil
		}
		n.Resent += len(calls)
		if err := n.ask(calls...); err != nil {
			return err
		}
	}
}

// commitOnce makes a COMMIT and returns the verifier.
func (n *crashNode) commitOnce(f *crashFile) (verifier uint64, err error) {
	err = n.ask(n.call(n.AppendCommit(nil, n.newXID(), f.handle), func(r *rpc.Reply) (err error) {
		verifier, err = parsed[uint64]("COMMIT")(r.Committed())
		return err
	}))
	return verifier, err
}

// check reads a file, and finds what cannot be there.
func (n *crashNode) check(f *crashFile) error {
	const reads = crashFileSize/crashReadSize + 1
	var parts [reads][]byte
	var calls []*crashCall
	for i := range parts {
		calls = append(calls, n.call(n.AppendRead(nil, n.newXID(), f.handle, uint64(i)*crashReadSize, crashReadSize), func(r *rpc.Reply) error {
			count, _, ok := r.Read()
			data, whole := r.Data(count)
			if !ok || !whole {
				return errors.New("READ: malformed results")
			}
			parts[i] = bytes.Clone(data)
			return nil
		}))
	}
	if err := n.ask(calls...); err != nil {
		return err
	}
	if err := f.explain(slices.Concat(parts[:]...)); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}

// explain finds out whether a file may be like that: each byte is what was safe,
// or what was written to this place since.
func (f *crashFile) explain(got []byte) error {
	if len(got) < len(f.safe) || len(got) > len(f.want) {
		return fmt.Errorf("it has %d bytes; %d are safe, and %d were written", len(got), len(f.safe), len(f.want))
	}
	for i, b := range got {
		if i < len(f.safe) && b == f.safe[i] || i >= len(f.safe) && b == 0 {
			continue
		}
		if !slices.ContainsFunc(f.since, func(p *piece) bool { return p.has(i, b) }) {
			return fmt.Errorf("byte %d of %d is %#x, which was not written since it was safe", i, len(got), b)
		}
	}
	return nil
}

func (p *piece) has(i int, b byte) bool {
	return i >= p.off && i < p.off+len(p.data) && p.data[i-p.off] == b
}

// cover puts what was written later over what was written before.
func (p *piece) cover(later *piece) {
	from, to := max(p.off, later.off), min(p.off+len(p.data), later.off+len(later.data))
	if from < to {
		copy(p.data[from-p.off:], later.data[from-later.off:to-later.off])
	}
}

// overwrite is what is in a file after a write.
func overwrite(content []byte, off int, data []byte) []byte {
	if grow := off + len(data) - len(content); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	copy(content[off:], data)
	return content
}

// createNext makes another file to write to.
func (n *crashNode) createNext() error {
	f, err := n.create(fmt.Sprintf("file%d", len(n.files)))
	n.files = append(n.files, f)
	n.Created++
	return err
}

// create makes a file, which must not be there, and looks it up.
func (n *crashNode) create(name string) (*crashFile, error) {
	f := &crashFile{name: name}
	verifier := n.rand.Uint64()
	if err := n.ask(n.call(n.AppendCreateExclusive(nil, n.newXID(), n.root, []byte(name), verifier), func(r *rpc.Reply) error {
		h, err := parsed[[]byte]("CREATE")(r.Made())
		f.handle = bytes.Clone(h)
		return err
	})); err != nil {
		return f, err
	}
	return f, n.ask(n.call(n.AppendLookup(nil, n.newXID(), n.root, []byte(name)), func(r *rpc.Reply) error {
		h, err := parsed[[]byte]("LOOKUP")(r.Lookup(new(rpc.Attr)))
		if err == nil && !bytes.Equal(h, f.handle) {
			err = fmt.Errorf("%s has the handle %x, and had %x when it was made", name, h, f.handle)
		}
		return err
	}))
}

// mount finds the node's home.
func (n *crashNode) mount() error {
	return n.ask(n.call(n.AppendMount(nil, n.newXID(), "/home"), func(r *rpc.Reply) error {
		h, err := parsed[[]byte]("MNT")(r.Mount())
		n.root = bytes.Clone(h)
		return err
	}))
}

// parsed makes an error of results that are not well-formed.
func parsed[T any](call string) func(T, bool) (T, error) {
	return func(v T, ok bool) (T, error) {
		if !ok {
			return v, errors.New(call + ": malformed results")
		}
		return v, nil
	}
}

// crashCall is a call, and what to do with the reply.
type crashCall struct {
	record []byte
	xid    uint32
	take   func(*rpc.Reply) error
	done   bool
}

func (n *crashNode) newXID() uint32 {
	n.xid++
	return n.xid
}

// call is the call with the newest xid.
func (n *crashNode) call(record []byte, take func(*rpc.Reply) error) *crashCall {
	return &crashCall{record: record, xid: n.xid, take: take}
}

// ask makes calls, and returns when all are answered. What has no answer when the
// connection is cut goes out again, as it was, over the next one.
func (n *crashNode) ask(calls ...*crashCall) error {
	for first := true; ; first = false {
		if err := n.connect(); err != nil {
			return err
		}
		var out []byte
		for _, c := range calls {
			if !c.done {
				out = append(out, c.record...)
				if !first {
					n.Repeated++
				}
			}
		}
		broken, err := n.exchange(out, calls)
		if !broken {
			return err
		}
		n.conn.Close()
		n.conn, n.cut = nil, true
	}
}

// exchange sends calls and takes the replies until all have come or the
// connection is broken.
func (n *crashNode) exchange(out []byte, calls []*crashCall) (broken bool, err error) {
	if n.conn.Send(out) != nil {
		return true, nil
	}
	for slices.ContainsFunc(calls, func(c *crashCall) bool { return !c.done }) {
		r, err := n.conn.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, err // nobody cut the connection: the server owes a reply
		}
		if err != nil {
			return true, nil
		}
		i := slices.IndexFunc(calls, func(c *crashCall) bool { return c.xid == r.XID })
		if i < 0 || calls[i].done {
			return false, fmt.Errorf("a reply to call %d, which nobody made", r.XID)
		}
		calls[i].done = true
		if err := r.Err(); err != nil {
			return false, err
		}
		if err := calls[i].take(r); err != nil {
			return false, err
		}
	}
	return false, nil
}

// connect connects to the server, for which it waits as long as it takes.
func (n *crashNode) connect() error {
	for n.conn == nil {
		err := n.net.Enter(func() (err error) {
			n.conn, err = rpc.Dial("127.0.0.1:2049", rpc.Options{Local: n.address})
			return err
		})
		if err == nil {
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-n.ctx.Done():
			return err
		}
	}
	return nil
}
