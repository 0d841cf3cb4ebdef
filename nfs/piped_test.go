package nfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// countSplices counts the WRITEs whose data came in a pipe.
func (s *homeServer) countSplices() *atomic.Int64 {
	n := new(atomic.Int64)
	s.hooks.splice.Store(new(func() { n.Add(1) }))
	return n
}

// wantNothingHeld fails unless all pipes and budgets are given back.
func (s *homeServer) wantNothingHeld(t *testing.T) {
	t.Helper()
	eventually(t, "all pipes and budgets are given back", func() bool {
		return int(s.pipes.made.Load()) == len(s.pipes.spare) && s.incoming.taken() == 0 && s.homes.taken() == 0
	})
}

// TestPipedWrites writes more than a buffer holds in one piece, at offsets that fit
// pages and others, and looks at what arrives.
func TestPipedWrites(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	spliced := s.countSplices()
	want := int64(0)
	content := fstest.Bytes(4 << 20)
	file := c.file("file")
	model := []byte{}
	for i, w := range []struct {
		off, n int
		stable uint32
		piped  bool
	}{
		{0, maxIO, unstable, true},
		{maxIO, maxIO, unstable, true},
		{5, maxIO, unstable, true},
		{2*maxIO + 4095, maxIO - 4, unstable, true},
		{77, quickMax + 5, unstable, false}, // with padding
		{100_001, quickMax + 4, unstable, true},
		{3, quickMax, unstable, false},
		{3 * maxIO, smallSize, unstable, false},
		{3*maxIO + 1, maxIO, fileSync, false},
		{9, maxIO, uint32(fs.DataSync), false},
		{4096, maxIO, unstable, true},
	} {
		data := content[i*1000:][:w.n]
		r := c.must(gonfs.NFSProcedureWrite, writeArgs(file, uint64(w.off), w.stable, data))
		if int(r.count) != w.n || r.committed != w.stable || !r.before[0] || r.after[0] == nil {
			t.Errorf("%d bytes at %d: %d are written, stable %d, %v", w.n, w.off, r.count, r.committed, r)
		}
		if w.piped {
			want++
		}
		if got := spliced.Load(); got != want {
			t.Fatalf("%d bytes at %d, stable %d: %d WRITEs were spliced, want %d", w.n, w.off, w.stable, got, want)
		}
		model = append(model, make([]byte, max(0, w.off+w.n-len(model)))...)
		copy(model[w.off:], data)
		c.wantFile("file", model)
	}
	c.must(gonfs.NFSProcedureCommit, fileHandle(file), number(0, 0, 0))
	s.wantNothingHeld(t)
	if n := s.pipes.made.Load(); n != 1 {
		t.Errorf("%d pipes are left, want one that was used again and again", n)
	}
}

// TestPipedWritesInPieces sends large WRITEs with other calls around them in all kinds
// of pieces: many at a time in one, cut in fragments, and few bytes at a time.
func TestPipedWritesInPieces(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	spliced := s.countSplices()
	content := fstest.Bytes(maxIO)
	const files = 6
	var handles [files][]byte
	names := [files]string{"a", "b", "c", "d", "e", "f"}
	for i, name := range names {
		handles[i] = c.file(name)
	}
	// Behind each WRITE a small call, so that a byte too many or too few is noticed.
	stream := func() (all []byte) {
		for i := range files {
			record := c.record(gonfs.NFSProcedureWrite, writeArgs(handles[i], 0, unstable, content))
			if i%2 == 1 { // what is not the last fragment is small
				record = append(append(mark(2, false), record[4:6]...), append(mark(uint32(len(record)-6), true), record[6:]...)...)
			}
			all = append(all, record...)
			all = append(all, c.record(gonfs.NFSProcedureGetAttr, fileHandle(c.root))...)
		}
		return all
	}
	for _, piece := range []int{1 << 30, 1 << 20, 100_003, 5000} {
		for i := range files {
			if err := os.Truncate(c.host(names[i]), 0); err != nil {
				t.Fatal(err)
			}
		}
		var sent sync.WaitGroup
		conn := s.dial(t)
		rest := stream()
		sent.Go(func() {
			for len(rest) > 0 {
				n := min(piece, len(rest))
				if _, err := conn.conn.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		})
		for range 2 * files {
			if msg, err := conn.receive(); err != nil || len(msg) < 28 || !bytes.Equal(msg[24:28], make([]byte, 4)) {
				t.Fatalf("in pieces of %d: %x, %v", piece, msg, err)
			}
		}
		sent.Wait()
		for i := range files {
			c.wantFile(names[i], content)
		}
		conn.conn.Close()
	}
	if n := spliced.Load(); n == 0 {
		t.Error("nothing was spliced")
	}
	s.wantNothingHeld(t)
}

// TestPipedModel has nodes write files at random, in pieces of all sizes and over connections
// that are cut in the middle: what was not answered is sent again. In the end each file
// is what a model says.
func TestPipedModel(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	spliced := s.countSplices()
	content := fstest.Bytes(maxIO + 1000)
	var all sync.WaitGroup
	for node := range 6 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(node)))
			c := s.mount(t)
			name := fmt.Sprint("file-", node)
			file := c.file(name)
			var model []byte
			for range 60 {
				n := 1 + rnd.IntN(maxIO)
				if rnd.IntN(3) > 0 {
					n = (n + 3) &^ 3
				}
				off, from, stable := rnd.IntN(4*maxIO), rnd.IntN(1000), uint32(rnd.IntN(8)/6)
				n = min(n, maxIO)
				data := content[from:][:n]
				record := c.record(gonfs.NFSProcedureWrite, writeArgs(file, uint64(off), stable, data))
				for !sendInPieces(c.client, rnd, record) {
					again := dial(t, s.addr)
					again.xid, again.cred = c.xid, c.cred
					c.client = again
				}
				model = append(model, make([]byte, max(0, off+n-len(model)))...)
				copy(model[off:], data)
			}
			c.wantFile(name, model)
		})
	}
	all.Wait()
	if spliced.Load() == 0 {
		t.Error("nothing was spliced")
	}
	s.wantNothingHeld(t)
}

// sendInPieces sends a record and takes the reply, which must be that of a success. Now and then it cuts the
// connection instead, and reports false.
func sendInPieces(c *client, rnd *rand.Rand, record []byte) bool {
	cut := -1
	if rnd.IntN(4) == 0 {
		cut = rnd.IntN(len(record) + 1)
	}
	for sent := 0; sent < len(record); {
		n := min(1+rnd.IntN(len(record)), len(record)-sent)
		if cut >= 0 {
			n = min(n, cut-sent)
		}
		if _, err := c.conn.Write(record[sent:][:n]); err != nil {
			c.t.Error(err)
			return true
		}
		if sent += n; sent == cut {
			c.conn.Close()
			return false
		}
	}
	msg, err := c.receive()
	if err != nil || len(msg) < 28 || !bytes.Equal(msg[24:28], make([]byte, 4)) {
		c.t.Errorf("% x, %v", msg, err)
	}
	return true
}

// TestPipeIsFull: what has no place in a pipe goes through a buffer after all, and all
// that follows.
func TestPipeIsFull(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	spliced := s.countSplices()
	content := fstest.Bytes(maxIO)
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd[1]), unix.F_SETPIPE_SZ, 8*4096); err != nil {
		t.Fatal(err)
	}
	s.pipes.made.Add(1)
	s.pipes.put(&pipe{in: fd[1], out: fd[0]})
	for i, name := range []string{"first", "second"} {
		c.must(gonfs.NFSProcedureWrite, writeArgs(c.file(name), 3, unstable, content))
		c.wantFile(name, append([]byte{0, 0, 0}, content...))
		if n := spliced.Load(); n != 0 {
			t.Errorf("%d of %d were spliced", n, i+1)
		}
	}
	other := s.mount(t)
	unix.Close(s.pipes.get().in) // the small one is not for others
	other.must(gonfs.NFSProcedureWrite, writeArgs(other.file("third"), 0, unstable, content))
	c.wantFile("third", content)
	if spliced.Load() != 1 {
		t.Error("another connection has no pipe")
	}
}

// TestUnsplicedHost: a host that cannot splice gets the data in a buffer.
func TestUnsplicedHost(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	spliced := s.countSplices()
	s.hooks.unspliced.Store(true)
	content := fstest.Bytes(maxIO)
	c.must(gonfs.NFSProcedureWrite, writeArgs(c.file("file"), 1, unstable, content))
	c.wantFile("file", append([]byte{0}, content...))
	if spliced.Load() != 1 {
		t.Error("it was not asked to")
	}
	s.wantNothingHeld(t)
}

// TestPipedOnce sends a large WRITE again: it has the reply that it had, and is not
// carried out. One of which some byte at the beginning is another is another call.
func TestPipedOnce(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	spliced := s.countSplices()
	file := c.file("file")
	content := fstest.Bytes(maxIO)
	record := c.record(gonfs.NFSProcedureWrite, writeArgs(file, 0, unstable, content))
	want := c.replyTo(record)
	c.must(gonfs.NFSProcedureWrite, writeArgs(file, 0, fileSync, []byte("later")))
	model := append([]byte("later"), content[5:]...)
	for range 3 {
		again := s.dial(t)
		if got := again.replyTo(record); !bytes.Equal(got, want) {
			t.Errorf("again:\n% x\nwant\n% x", got, want)
		}
		again.wantAlive()
		c.wantFile("file", model)
	}
	if n := spliced.Load(); n != 1 {
		t.Errorf("it was carried out %d times", n)
	}
	other := bytes.Clone(record)
	other[len(other)-maxIO+600] ^= 1
	c.replyTo(other)
	if n := spliced.Load(); n != 2 {
		t.Error("another call is taken for the same")
	}
	s.wantNothingHeld(t)
}

// TestPipedUnderWay sends a large WRITE again over another connection while the first is
// under way: the data of the second is thrown away, and there is one reply to both.
func TestPipedUnderWay(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	g := newGate(t)
	s.hooks.splice.Store(new(g.pass))
	content := fstest.Bytes(maxIO)
	record := c.record(gonfs.NFSProcedureWrite, writeArgs(c.file("file"), 0, unstable, content))
	first, second := s.dial(t), s.dial(t)
	first.sendRecord(record)
	<-g.arrived
	second.sendRecord(record)
	eventually(t, "the second waits", func() bool { return s.homes.taken() == 2*(largeSize+2*smallSize) })
	g.open()
	a, err := first.receive()
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.receive()
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%v; the replies are\n% x\n% x", err, a, b)
	}
	if n := len(g.arrived); n != 0 {
		t.Errorf("it was carried out %d times more", n)
	}
	second.wantAlive()
	c.wantFile("file", content)
	s.wantNothingHeld(t)
}

// TestPipedShutdown stops the server in the middle of a large WRITE: it is not carried out,
// and nothing waits for the rest.
func TestPipedShutdown(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	record := c.record(gonfs.NFSProcedureWrite, writeArgs(c.file("file"), 0, unstable, fstest.Bytes(maxIO)))
	c.sendRecord(record[:maxIO/2])
	eventually(t, "half of it has arrived", func() bool { return s.incoming.taken() == largeSize })
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	c.wantClosed()
	c.conn.Close()
	<-stopped
	c.wantFile("file", nil)
	s.wantNothingHeld(t)
}

// TestPipedAmongOthers: a WRITE that goes through a buffer does not keep others from pipes,
// however fast they follow.
func TestPipedAmongOthers(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	spliced := s.countSplices()
	const calls, size = 60, 200_000
	file, content := c.file("file"), fstest.Bytes(size)
	c.out.Reset(make([]byte, calls*(size+maxHeader)))
	for i := range calls {
		stable := unstable
		if i%2 == 0 {
			stable = fileSync
		}
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureWrite), writeArgs(file, uint64(i)*size, stable, content))
	}
	go c.conn.Write(c.out.Bytes())
	for range calls {
		if _, d := c.reply(); d.Uint32() != nfsOK {
			t.Error("it fails")
		}
	}
	if n := spliced.Load(); n != calls/2 {
		t.Errorf("%d WRITEs were spliced, want %d", n, calls/2)
	}
	c.wantFile("file", bytes.Repeat(content, calls))
}

// TestPipedFailures: a large WRITE that fails leaves the connection in step, and nothing
// behind.
func TestPipedFailures(t *testing.T) {
	s := startHomes(t, Limits{}, func(h *exports.Homes) { h.Squash = exports.SquashRoot })
	c := s.mount(t)
	c.cred = authSys(1000, 1000)
	if err := os.Chown(c.dir, 1000, 1000); err != nil {
		t.Skip("needs root: ", err)
	}
	file, content := c.file("file"), fstest.Bytes(maxIO)
	dir := c.must(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755)).handle
	gone := c.file("gone")
	c.must(gonfs.NFSProcedureRemove, lookupArgs(c.root, "gone"))
	foreign := s.mountFrom(t, "127.0.0.2")
	image := c.mount("/")
	forged := bytes.Clone(file)
	forged[len(forged)-1] ^= 1
	for name, w := range map[string]struct {
		handle []byte
		off    uint64
		cred   func(*wire.Encoder)
		want   gonfs.NFSStatus
	}{
		"a directory":         {dir, 0, nil, gonfs.NFSStatusIsDir},
		"a file that is gone": {gone, 0, nil, gonfs.NFSStatusStale},
		"another's file":      {file, 0, authSys(1001, 1001), gonfs.NFSStatusAccess},
		"too far":             {file, 1<<63 - 5, nil, gonfs.NFSStatusFBig},
		"another's home":      {foreign.root, 0, nil, gonfs.NFSStatusAccess},
		"an image":            {image, 0, nil, gonfs.NFSStatusROFS},
		"a forged handle":     {forged, 0, nil, gonfs.NFSStatusBadHandle},
		"no handle":           {[]byte("x"), 0, nil, gonfs.NFSStatusBadHandle},
	} {
		if w.cred != nil {
			c.cred = w.cred
		}
		r := c.do(gonfs.NFSProcedureWrite, writeArgs(w.handle, w.off, unstable, content))
		if r.status != uint32(w.want) {
			t.Errorf("%s: status %d, want %d", name, r.status, w.want)
		}
		c.cred = authSys(1000, 1000)
		c.wantAlive()
	}
	c.wantFile("file", nil)

	// A count that is not that of the data, and a value that is none.
	for _, change := range []func(args []byte){
		func(args []byte) { args[3]++ },
		func(args []byte) { args[7] = 3 },
		func(args []byte) { args[11]++ },
	} {
		record := c.record(gonfs.NFSProcedureWrite, writeArgs(file, 0, unstable, content))
		change(record[len(record)-maxIO-12:])
		c.replyTo(record)
		c.wantAlive()
		c.wantFile("file", nil)
		s.wantNothingHeld(t)
	}
}

// TestPipedUnpadded: data without its padding is no more a WRITE in a pipe than elsewhere.
func TestPipedUnpadded(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	for _, n := range []int{100_001, 5} {
		record := c.record(gonfs.NFSProcedureWrite, writeArgs(c.file("file"), 0, unstable, fstest.Bytes(n)))
		record = record[:len(record)-3]
		copy(record, mark(uint32(len(record)-4), true))
		c.sendRecord(record)
		if _, stat, _ := c.outcome(); stat != wire.GarbageArgs {
			t.Errorf("%d bytes: accept_stat %d", n, stat)
		}
		c.wantFile("file", nil)
	}
}

// TestPipedIncomplete begins large WRITEs and does not end them: nothing of them is
// written, and all that they hold is given back.
func TestPipedIncomplete(t *testing.T) {
	s := startHomes(t, Limits{Record: 200 * time.Millisecond}, nil)
	c := s.mount(t)
	content := fstest.Bytes(maxIO)
	record := c.record(gonfs.NFSProcedureWrite, writeArgs(c.file("file"), 0, unstable, content))
	var all sync.WaitGroup
	for i := range 2 * maxPipes {
		part := record[:len(record)-1-i*10_000]
		all.Go(func() {
			slow := dial(t, s.addr)
			slow.sendRecord(part)
			if i%2 == 0 {
				slow.conn.Close()
				return
			}
			slow.wantClosed()
		})
	}
	all.Wait()
	c.wantFile("file", nil)
	s.wantNothingHeld(t)
	c.replyTo(record)
	c.wantFile("file", content)
}

// TestPipedPanic: a fault ends the connection, and its pipe is not used again.
func TestPipedPanic(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	content := fstest.Bytes(maxIO)
	record := c.record(gonfs.NFSProcedureWrite, writeArgs(c.file("file"), 0, unstable, content))
	s.hooks.splice.Store(new(func() { panic("fault") }))
	c.sendRecord(record)
	c.wantClosed()
	s.wantNothingHeld(t)
	s.hooks.splice.Store(nil)
	s.dial(t).replyTo(record)
	c.wantFile("file", content)
}

// TestPipedStuck: where there is no room for a call, its data is thrown away, and the
// connection goes on.
func TestPipedStuck(t *testing.T) {
	s := startHomes(t, Limits{HomesNode: 2 * largeSize}, nil)
	c := s.mount(t)
	content := fstest.Bytes(maxIO)
	file := c.file("file")
	g := newGate(t)
	s.hooks.splice.Store(new(g.pass))
	first := s.dial(t)
	first.sendRecord(c.record(gonfs.NFSProcedureWrite, writeArgs(file, 0, unstable, content)))
	<-g.arrived
	r := c.do(gonfs.NFSProcedureWrite, writeArgs(file, maxIO, unstable, content))
	if r.status != uint32(gonfs.NFSStatusJukebox) {
		t.Errorf("status %d, want JUKEBOX", r.status)
	}
	c.wantAlive()
	g.open()
	if _, err := first.receive(); err != nil {
		t.Fatal(err)
	}
	c.wantFile("file", content)
	s.wantNothingHeld(t)
}
