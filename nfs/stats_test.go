package nfs

import (
	"fmt"
	"maps"
	"net"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// meteredConn counts the bytes that a client sends and takes.
type meteredConn struct {
	net.Conn
	in, out uint64
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in += uint64(n)
	return n, err
}

func (c *meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out += uint64(n)
	return n, err
}

// metered makes the client count its bytes.
func (c *client) metered() *meteredConn {
	m := &meteredConn{Conn: c.conn}
	c.conn = m
	return m
}

// finalStats stops the server, which finishes all that it has in hand, and returns what it
// has counted.
func (h *harness) finalStats() Snapshot {
	h.stop()
	return h.Stats()
}

// counted are the calls by program, procedure and, for homes, that word.
func counted(t *testing.T, s *Snapshot) map[string]uint64 {
	t.Helper()
	counts := map[string]uint64{}
	for _, c := range s.Calls {
		name := c.Program + c.Procedure
		if c.Homes {
			name += " home"
		}
		counts[name] = c.Count
		last := uint64(0)
		for _, w := range c.Within {
			if w.Count < last || w.Count > c.Count {
				t.Errorf("%s: %d took no longer than %s, but %d no longer than less, of %d", name, w.Count, w.Time, last, c.Count)
			}
			last = w.Count
		}
		if c.Took <= 0 {
			t.Errorf("%s took %s", name, c.Took)
		}
	}
	return counts
}

func wantCounts(t *testing.T, what string, got, want map[string]uint64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s:\n%v; want\n%v", what, got, want)
	}
}

// TestStats makes calls of all kinds and compares what was counted.
func TestStats(t *testing.T) {
	h := start(t, newFileTree(t, fstest.Bytes(4<<20)), Limits{})
	c := h.dial(t)
	meter := c.metered()
	root, big := c.mount("/"), c.handle("/big") // two mounts and a LOOKUP
	c.call(progMount, 3, uint32(gonfs.MountProcMount), func(e *wire.Encoder) { e.String("/no/such") })
	const inFlight = 40
	for range inFlight {
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureGetAttr), func(e *wire.Encoder) { e.Opaque(root) })
	}
	c.flush()
	for range inFlight {
		c.reply()
	}
	for _, size := range []uint32{4 << 10, 128<<10 + 1, 1 << 20} { // copied, and from the file
		if status, data, _ := c.readAt(big, 0, size); status != nfsOK || len(data) != int(size) {
			t.Fatalf("READ of %d: status %d, %d bytes", size, status, len(data))
		}
	}
	c.call(progACL, 3, 0, nil)
	c.call(progPortmap, 2, 0, nil)
	for _, bad := range []struct{ prog, vers, proc uint32 }{
		{progNFS, 4, 1}, {progNFS, 4, 0}, {progNFS, 2, 0}, {progNFS, 5, 0}, {progMount, 2, 1}, // PROG_MISMATCH
		{999999, 1, 0},                     // PROG_UNAVAIL
		{progNFS, 3, 22}, {progNFS, 3, 99}, // PROC_UNAVAIL
		{progNFS, 3, 1}, // GARBAGE_ARGS, for it has none
	} {
		c.push(bad.prog, bad.vers, bad.proc, nil)
		c.flush()
		if _, stat, _ := c.outcome(); stat == wire.Success {
			t.Errorf("%v: accepted", bad)
		}
	}
	c.cred = func(e *wire.Encoder) { e.Uint32(77); e.Uint32(0) }
	c.push(progNFS, 3, 0, nil)
	c.flush()
	if _, err := c.receive(); err != nil {
		t.Fatal(err)
	}
	if s := h.Stats(); s.Conns != 1 || s.Accepted != 1 || s.Strangers != 0 {
		t.Errorf("%d connections of %d, %d of strangers; want one", s.Conns, s.Accepted, s.Strangers)
	}
	c.conn.Close()

	s := h.finalStats()
	wantCounts(t, "calls", counted(t, &s), map[string]uint64{
		"nfsGETATTR": inFlight, "nfsLOOKUP": 1, "nfsREAD": 3, "mount": 3, "portmap": 1, "nfsacl": 1,
	})
	wantCounts(t, "errors", s.Errors, map[string]uint64{
		"MSG_DENIED": 1, "PROG_UNAVAIL": 1, "PROG_MISMATCH": 5, "PROC_UNAVAIL": 2, "GARBAGE_ARGS": 1, "SYSTEM_ERR": 0,
	})
	if s.NFS2 != 1 || s.NFS4 != 2 {
		t.Errorf("%d calls of NFS 2, %d of NFS 4; want 1 and 2", s.NFS2, s.NFS4)
	}
	maps.DeleteFunc(s.Mounts, func(_ string, n uint64) bool { return n == 0 })
	wantCounts(t, "mounts", s.Mounts, map[string]uint64{"MNT3_OK": 2, "MNT3ERR_NOENT": 1})
	if s.Received != meter.out || s.Sent != meter.in {
		t.Errorf("received %d bytes, sent %d; the client sent %d and took %d", s.Received, s.Sent, meter.out, meter.in)
	}
	if s.Conns != 0 || s.Waited != 0 || s.Panics != 0 || s.Pending+s.Homes+s.Incoming+s.Reading != 0 {
		t.Errorf("%+v; want nothing left", s)
	}
}

// TestStatsOfCallsThatWait is about calls that other goroutines answer.
func TestStatsOfCallsThatWait(t *testing.T) {
	h := start(t, coldTree(sample()), Limits{})
	c := h.dial(t)
	meter := c.metered()
	h1 := c.handle("/etc/passwd")
	for range 3 {
		c.readAt(h1, 0, 100)
	}
	c.conn.Close()
	s := h.finalStats()
	wantCounts(t, "calls", counted(t, &s), map[string]uint64{"mount": 1, "nfsLOOKUP": 2, "nfsREAD": 3})
	if s.Waited != 3 || s.Received != meter.out || s.Sent != meter.in {
		t.Errorf("%d waited, %d and %d bytes; want 3, %d, %d", s.Waited, s.Received, s.Sent, meter.out, meter.in)
	}
}

// TestStatsOfHomes makes calls about a home that its leader answers, that others do, that go
// through a pipe, that come twice, and that cannot be answered.
func TestStatsOfHomes(t *testing.T) {
	h := startHomes(t, Limits{}, nil)
	c := h.mount(t)
	meter := c.metered()
	fresh := c.file("file")
	content := fstest.Bytes(1 << 20)
	for _, stable := range []uint32{0, 2} { // UNSTABLE, FILE_SYNC
		c.must(gonfs.NFSProcedureWrite, writeArgs(fresh, 0, stable, content))
	}
	for _, size := range []uint32{4 << 10, 1 << 20} {
		c.readAt(fresh, 0, size)
	}
	c.nfs(gonfs.NFSProcedureGetAttr, fileHandle(fresh))
	for range 2 {
		c.xid = 4711 // the same call twice
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureMkDir), joined(lookupArgs(c.root, "dir"), attributes(0o755)))
		c.flush()
		c.reply()
	}
	c.push(progNFS, 3, uint32(gonfs.NFSProcedureCommit), fileHandle(fresh)) // GARBAGE_ARGS
	c.flush()
	c.outcome()
	c.conn.Close()
	s := h.finalStats()
	wantCounts(t, "calls", counted(t, &s), map[string]uint64{
		"mount": 1, "nfsCREATE home": 1, "nfsWRITE home": 2, "nfsREAD home": 2, "nfsGETATTR home": 1, "nfsMKDIR home": 2,
	})
	if s.Errors["GARBAGE_ARGS"] != 1 {
		t.Errorf("errors %v; want one GARBAGE_ARGS", s.Errors)
	}
	// The mount was before the meter.
	if s.Received <= meter.out || s.Sent <= meter.in || s.Received > meter.out+1000 || s.Sent > meter.in+1000 {
		t.Errorf("received %d bytes, sent %d; the client sent %d and took %d", s.Received, s.Sent, meter.out, meter.in)
	}
}

func TestStatsOfDatagrams(t *testing.T) {
	d := startDatagrams(t, "127.0.0.1:0", "127.0.0.1")
	call := words(7, 0, 2, progPortmap, 2, 0, 0, 0, 0, 0)
	d.send(call)
	reply := d.receive()
	eventually(t, "the datagram is counted", func() bool {
		s := d.Stats()
		counts := counted(t, &s)
		return counts["portmap"] == 1 && s.Received == uint64(len(call)) && s.Sent == uint64(len(reply))
	})
}

func TestEvictionsAreCounted(t *testing.T) {
	h := start(t, sample(), Limits{Conns: 1})
	first := h.dial(t)
	first.wantAlive()
	eventually(t, "it is idle", func() bool { return h.idle() == 1 })
	h.dial(t).wantAlive()
	if s := h.Stats(); s.Evicted != 1 || s.Accepted != 2 {
		t.Errorf("%d evicted of %d; want 1 of 2", s.Evicted, s.Accepted)
	}
}

// TestLatencyBuckets puts calls at the bounds.
func TestLatencyBuckets(t *testing.T) {
	s := &stats{}
	var b batch
	for k := range kinds {
		b.add(k)
		b.add(k)
	}
	b.drain(&s.shards[1], latencyBounds[0])
	if b != (batch{}) {
		t.Errorf("a batch that was drained has %v", b)
	}
	last := len(latencyBounds) - 1
	for k := range kinds {
		s.shards[2].count(k, 1, latencyBounds[0]+1)
		s.shards[2].count(k, 3, latencyBounds[last]+1)
		sum := s.sum(k)
		want := 2*latencyBounds[0] + latencyBounds[0] + 1 + 3*(latencyBounds[last]+1)
		if sum.Count != 6 || sum.Within[0].Count != 2 || sum.Within[1].Count != 3 || sum.Within[last].Count != 3 || sum.Took != want {
			t.Errorf("kind %d: %+v; want 2, 1 and 3 calls that took %s", k, sum, want)
		}
	}
	for i := 1; i < len(latencyBounds); i++ {
		if r := float64(latencyBounds[i]) / float64(latencyBounds[i-1]); r < 2.5 || r > 4 {
			t.Errorf("%s follows %s", latencyBounds[i], latencyBounds[i-1])
		}
	}
}

// TestKindsHaveNames looks for two kinds of one name.
func TestKindsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for k := range kindError {
		c := k.describe()
		name := fmt.Sprint(c.Program, c.Procedure, c.Homes)
		if seen[name] || c.Procedure == "UNKNOWN" {
			t.Errorf("kind %d is called %s", k, name)
		}
		seen[name] = true
	}
}
