package nfs

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// record returns a call as it goes over the wire, and its xid.
func (c *client) record(proc gonfs.NFSProcedure, args ...func(*wire.Encoder)) []byte {
	c.out.Truncate(0)
	c.push(progNFS, 3, uint32(proc), joined(args...))
	record := bytes.Clone(c.out.Bytes())
	c.out.Truncate(0)
	return record
}

// sendRecord sends what record returned.
func (c *client) sendRecord(record []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(record); err != nil {
		c.t.Fatal(err)
	}
}

// replyTo sends a record and returns the whole reply.
func (c *client) replyTo(record []byte) []byte {
	c.t.Helper()
	c.sendRecord(record)
	reply, err := c.receive()
	if err != nil {
		c.t.Fatal(err)
	}
	return bytes.Clone(reply)
}

// onceCalls returns the calls that must not be carried out twice, each of which
// succeeds once and fails, or does something else, the second time.
func onceCalls(c *homeClient) map[string][]byte {
	file, dir := c.file("file"), c.must(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755)).handle
	c.file("removed")
	c.file("renamed")
	c.must(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "rmdir"), attributes(0o755))
	in := func(name string) func(*wire.Encoder) { return lookupArgs(dir, name) }
	guarded := c.file("guarded")
	d := c.nfs(gonfs.NFSProcedureGetAttr, fileHandle(guarded))
	d.Uint32()
	d.FixedOpaque(attrSize - 8)
	ctime := number(d.Uint32(), d.Uint32())
	return map[string][]byte{
		"CREATE":  c.record(gonfs.NFSProcedureCreate, in("created"), number(1), attributes(0o644)),
		"MKDIR":   c.record(gonfs.NFSProcedureMkDir, in("mkdir"), attributes(0o755)),
		"SYMLINK": c.record(gonfs.NFSProcedureSymlink, in("symlink"), attributes(0o777), text("x")),
		"MKNOD":   c.record(gonfs.NFSProcedureMkNod, in("mknod"), number(7), attributes(0o600)),
		"LINK":    c.record(gonfs.NFSProcedureLink, fileHandle(file), in("linked")),
		"REMOVE":  c.record(gonfs.NFSProcedureRemove, lookupArgs(c.root, "removed")),
		"RMDIR":   c.record(gonfs.NFSProcedureRmDir, lookupArgs(c.root, "rmdir")),
		"RENAME":  c.record(gonfs.NFSProcedureRename, lookupArgs(c.root, "renamed"), in("renamed")),
		"SETATTR": c.record(gonfs.NFSProcedureSetAttr, fileHandle(guarded), number(1, 0o600, 0, 0, 0, 0, 0, 1), ctime),
	}
}

// TestOnceOnly makes each call, cuts the connection and makes it again over
// another one: it has the reply to the first.
func TestOnceOnly(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	calls := onceCalls(c)
	for name, record := range calls {
		first := s.dial(t)
		want := first.replyTo(record)
		first.conn.Close()
		if d := wire.NewDecoder(want[24:]); d.Uint32() != nfsOK {
			t.Errorf("%s fails: % x", name, want)
			continue
		}
		for range 2 {
			again := s.dial(t)
			if got := again.replyTo(record); !bytes.Equal(got, want) {
				t.Errorf("%s again:\n% x\nwant\n% x", name, got, want)
			}
			again.conn.Close()
		}
		if got := c.replyTo(record); !bytes.Equal(got, want) {
			t.Errorf("%s over a connection that was there before:\n% x\nwant\n% x", name, got, want)
		}
	}
	if len(calls) != 9 {
		t.Errorf("%d calls are tested", len(calls))
	}
}

// TestOnceOnlyUnread cuts the connection before the reply can be read.
func TestOnceOnlyUnread(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	for i := range 50 {
		record := c.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, fmt.Sprint(i)), attributes(0o755))
		first := s.dial(t)
		first.sendRecord(record)
		first.conn.Close()
		// It may not have arrived, be under way, or be done.
		if d := wire.NewDecoder(s.dial(t).replyTo(record)[24:]); d.Uint32() != nfsOK {
			t.Errorf("directory %d cannot be made", i)
		}
	}
}

// TestNotTheSameCall changes one thing about a call, which is then carried out.
func TestNotTheSameCall(t *testing.T) {
	s := startHomes(t, Limits{}, func(h *exports.Homes) { h.Shared = true })
	c := s.mount(t)
	c.dir = s.dir
	mkdir := func(c *homeClient, name string) []byte {
		return c.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, name), attributes(0o755))
	}
	record := mkdir(c, "dir")
	status := func(c *homeClient, record []byte) uint32 {
		d := wire.NewDecoder(c.replyTo(record)[24:])
		return d.Uint32()
	}
	for range 2 {
		if s := status(c, record); s != nfsOK {
			t.Fatalf("the call itself: status %d", s)
		}
	}
	c.xid--
	c.cred = authNone
	if s := status(c, mkdir(c, "dir")); s == nfsOK {
		t.Error("by nobody: the reply to the first")
	}
	c.cred = authSys(0, 0)
	xid := bytes.Clone(record)
	xid[7]++
	xid[4]++ // not that of a call that c will make
	if s := status(c, xid); s != exist {
		t.Errorf("with another xid: status %d", s)
	}
	other := s.mountFrom(t, "127.0.0.2")
	if s := status(other, record); s != exist {
		t.Errorf("from another node: status %d", s)
	}
	c.xid--
	c.cred = authSys(7, 7)
	if s := status(c, mkdir(c, "dir")); s == nfsOK {
		t.Error("by another user: the reply to the first")
	}
	c.xid--
	c.cred = authSys(0, 0)
	if s := status(c, mkdir(c, "die")); s != nfsOK {
		t.Errorf("with another name: status %d", s)
	}
	if _, err := os.Stat(c.host("die")); err != nil {
		t.Error("with another name it is not carried out")
	}
}

// gate holds calls up. Each says that it has arrived, and goes on when the gate is
// open.
type gate struct {
	arrived chan struct{}
	opened  chan struct{}
	open    func()
}

func newGate(t *testing.T) *gate {
	g := &gate{arrived: make(chan struct{}, 1000), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	t.Cleanup(g.open) // or the server of a test that failed would never stop
	return g
}

func (g *gate) pass() {
	g.arrived <- struct{}{}
	<-g.opened
}

// TestSameCallUnderWay repeats a call that has not been answered yet.
func TestSameCallUnderWay(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	g := newGate(t)
	s.hooks.mkdir.Store(new(g.pass))
	record := c.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755))
	c.sendRecord(record)
	<-g.arrived
	c.sendRecord(record) // this one is dropped
	c.wantAlive()        // it has arrived, for what is behind it is answered
	other := s.dial(t)
	other.sendRecord(record) // this one waits
	other.wantAlive()        // it has arrived, too
	eventually(t, "the second is dropped", func() bool {
		s.homes.mu.Lock()
		defer s.homes.mu.Unlock()
		return s.homes.total-s.homes.free == 2*2*smallSize
	})
	g.open()
	first, err := c.receive()
	if err != nil {
		t.Fatal(err)
	}
	first = bytes.Clone(first)
	if second, err := other.receive(); err != nil || !bytes.Equal(first, second) {
		t.Errorf("over another connection % x, %v; want % x", second, err, first)
	}
	if d := wire.NewDecoder(first[24:]); d.Uint32() != nfsOK {
		t.Errorf("% x", first)
	}
	c.wantAlive() // the next reply is to this, so there was no third
	if len(g.arrived) != 0 {
		t.Error("it was carried out again")
	}
}

// TestLateWrite cuts a connection while a WRITE is under way, and sends it again over
// another one: no reply comes before the first is over, or it would overwrite what
// is written after that reply.
func TestLateWrite(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	file := c.file("file")
	g := newGate(t)
	s.hooks.write.Store(new(g.pass))
	first := s.dial(t)
	record := c.record(gonfs.NFSProcedureWrite, writeArgs(file, 0, fileSync, []byte("old")))
	first.sendRecord(record)
	<-g.arrived
	first.conn.Close()
	s.hooks.write.Store(nil)
	again := s.dial(t)
	again.sendRecord(record)
	again.wantAlive() // so nothing was there to overtake it
	eventually(t, "the second waits", func() bool {
		s.homes.mu.Lock()
		defer s.homes.mu.Unlock()
		return s.homes.total-s.homes.free == 2*2*smallSize
	})
	g.open()
	if _, err := again.receive(); err != nil {
		t.Fatal(err)
	}
	c.must(gonfs.NFSProcedureWrite, writeArgs(file, 0, fileSync, []byte("new")))
	again.replyTo(record) // however late it comes
	c.wantFile("file", []byte("new"))
}

// TestDeadConnection: what was asked over a connection that has ended, and was not
// begun, is not begun.
func TestDeadConnection(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	node := netip.MustParseAddrPort("127.0.0.1:1")
	call := s.newCall(s.exports.Peer(node), node, node)
	defer s.freeCall(call)
	record := c.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755))
	dead := &conn{}
	dead.dead.Store(true)
	if call.answerOnce(dead, record[wire.MarkSize:]) {
		t.Error("there is a reply")
	}
	if _, err := os.Stat(c.host("dir")); err == nil {
		t.Error("it was carried out")
	}
	if d := wire.NewDecoder(c.replyTo(record)[24:]); d.Uint32() != nfsOK {
		t.Error("it is not carried out when it comes again")
	}
}

// TestHomeDoesNotHoldUp waits for the disk of a home, and asks for other things
// over the same connection meanwhile.
func TestHomeDoesNotHoldUp(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	image, file := c.handle("/etc/passwd"), c.file("file")
	g := newGate(t)
	s.hooks.commit.Store(new(g.pass))
	const waiting = 20
	for range waiting {
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureCommit), joined(fileHandle(file), number(0, 0, 0)))
	}
	c.flush()
	for range waiting {
		<-g.arrived
	}
	if status, _, _ := c.readAt(image, 0, 100); status != nfsOK {
		t.Errorf("READ of an image: status %d", status)
	}
	c.must(gonfs.NFSProcedureWrite, writeArgs(file, 0, fileSync, fstest.Bytes(1<<20)))
	g.open()
	for range waiting {
		_, d := c.reply()
		if r := decodeResults(t, gonfs.NFSProcedureCommit, d); r.status != nfsOK {
			t.Errorf("COMMIT: status %d", r.status)
		}
	}
}

// TestHomesAreBounded: where a node has as much under way as it may, over however
// many connections, the rest waits, and other nodes do not.
func TestHomesAreBounded(t *testing.T) {
	const calls = 4
	s := startHomes(t, Limits{HomesNode: calls * 2 * smallSize}, nil)
	c := s.mount(t)
	file := c.file("file")
	g := newGate(t)
	var under atomic.Int64
	s.hooks.commit.Store(new(func() {
		if n := under.Add(1); n > calls {
			t.Errorf("%d calls are under way", n)
		}
		g.pass()
		under.Add(-1)
	}))
	const each = 5 * calls
	conns := []*client{c.client, s.dial(t), s.dial(t)}
	for _, conn := range conns {
		for range each {
			conn.push(progNFS, 3, uint32(gonfs.NFSProcedureCommit), joined(fileHandle(file), number(0, 0, 0)))
		}
		conn.flush()
	}
	for range calls {
		<-g.arrived
	}
	other := s.mountFrom(t, "127.0.0.2")
	other.file("file")
	g.open()
	for _, conn := range conns {
		for range each {
			conn.reply()
		}
		conn.conn.Close()
	}
	eventually(t, "a node that has gone is forgotten", func() bool {
		s.nodes.mu.Lock()
		defer s.nodes.mu.Unlock()
		return len(s.nodes.of) == 1
	})
}

// TestShutdownFinishesChanges: a server that is told to stop finishes what it has
// begun, and says so.
func TestShutdownFinishesChanges(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	g := newGate(t)
	s.hooks.mkdir.Store(new(g.pass))
	c.sendRecord(c.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755)))
	<-g.arrived
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop()
	}()
	g.open()
	_, d := c.reply()
	if r := decodeResults(t, gonfs.NFSProcedureMkDir, d); r.status != nfsOK {
		t.Errorf("status %d", r.status)
	}
	<-stopped
}

// TestShutdownResetsNobody: a client that goes on to call a server which stops is
// not reset, for it would drop replies that it has not taken yet.
func TestShutdownResetsNobody(t *testing.T) {
	for range 10 {
		s := startHomes(t, Limits{}, nil)
		c := s.mount(t)
		g := newGate(t)
		s.hooks.mkdir.Store(new(g.pass))
		record := c.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755))
		c.sendRecord(record)
		<-g.arrived
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.stop()
		}()
		eventually(t, "the server stops", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			for on := range s.conns {
				return on.group.stopping.Load()
			}
			return false
		})
		for range 10 { // which it does not read any more, or not all of them
			c.sendRecord(c.record(gonfs.NFSProcedureNull))
		}
		g.open()
		answered := false
		var err error
		for reply := []byte(nil); err == nil; reply, err = c.receive() {
			answered = answered || bytes.HasPrefix(reply, record[wire.MarkSize:][:4])
		}
		if !answered || err != io.EOF {
			t.Errorf("what was begun is answered: %v; then %v", answered, err)
		}
		c.conn.Close()
		<-stopped
	}
}

// TestPanicInHome: a fault ends the connection, not the server, and the call can
// be made again.
func TestPanicInHome(t *testing.T) {
	s := startHomes(t, Limits{}, nil)
	c := s.mount(t)
	s.hooks.mkdir.Store(new(func() { panic("fault") }))
	record := c.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755))
	c.sendRecord(record)
	c.wantClosed()
	s.hooks.mkdir.Store(nil)
	if d := wire.NewDecoder(s.dial(t).replyTo(record)[24:]); d.Uint32() != nfsOK {
		t.Error("the call is not carried out when it is made again")
	}
}

// FuzzHomeCall makes whatever call comes about a home. None may make the server
// panic, answer what is no reply, or touch what is beside the home.
func FuzzHomeCall(f *testing.F) {
	s := startHomes(f, Limits{}, nil)
	c := s.mount(f)
	file := c.file("file")
	beside := c.host("../beside")
	if err := os.WriteFile(beside, []byte("beside"), 0o644); err != nil {
		f.Fatal(err)
	}
	for _, call := range everyCall(c.client) {
		if call.prog != progNFS {
			continue
		}
		proc := gonfs.NFSProcedure(call.proc)
		for _, h := range [][]byte{c.root, file} {
			f.Add(c.record(proc, goodCall(c.client, proc, h))[wire.MarkSize:])
		}
	}
	f.Add(c.record(gonfs.NFSProcedureRename, lookupArgs(c.root, "file"), lookupArgs(c.root, "../beside"))[wire.MarkSize:])
	f.Add(c.record(gonfs.NFSProcedureLink, fileHandle(file), lookupArgs(c.root, "new"))[wire.MarkSize:])
	f.Add(c.record(gonfs.NFSProcedureWrite, writeArgs(file, 1<<63-2, 1, []byte("x")))[wire.MarkSize:])
	f.Add(c.record(gonfs.NFSProcedureSetAttr, fileHandle(file), number(0, 0, 0, 1, 0x7fffffff, 0xffffffff, 0, 0, 0))[wire.MarkSize:])

	node := netip.MustParseAddrPort("127.0.0.1:1")
	peer := s.exports.Peer(node)
	on := &conn{}
	f.Fuzz(func(t *testing.T, msg []byte) {
		whole := bytes.Clone(msg)
		call := s.newCall(peer, node, node)
		defer s.freeCall(call)
		if at := call.pipeableData(msg, len(msg)+quickMax); at != 0 && (at%4 != 0 || at+dupPrefix > len(msg)) {
			t.Errorf("data begins at %d of %d", at, len(msg))
		}
		result := call.answer(msg)
		if result == deferred && call.inHome {
			later := call.forkInHome(make([]byte, bufferSize(call.roomInHome())))
			defer s.freeCall(later)
			later.answerOnce(on, msg)
			checkHomeReply(t, later, msg)
		}
		if !bytes.Equal(whole, msg) {
			t.Error("the message was changed")
		}
		if b, err := os.ReadFile(beside); err != nil || string(b) != "beside" {
			t.Error("what is beside the home was changed")
		}
	})
}

// checkHomeReply holds a reply about a home against the message that it answers.
func checkHomeReply(t *testing.T, c *call, msg []byte) {
	if c.out.Overflow() {
		t.Error("a reply that is too large")
	}
	reply := c.out.Bytes()
	if len(reply) < wire.MarkSize+20 || !bytes.Equal(reply[4:8], msg[:4]) || len(reply)%4 != 0 {
		t.Fatalf("% x is no reply to % x", reply, msg)
	}
	d := wire.NewDecoder(reply[wire.MarkSize:])
	if _, stat, accepted := d.ReplyHeader(); !accepted || stat != wire.Success || c.header.Prog != progNFS {
		return
	}
	if s := gonfs.NFSStatus(d.Uint32()); s.String() == "unknown" || s == gonfs.NFSStatusIO || s == gonfs.NFSStatusServerFault {
		t.Errorf("%v answers %v (%d)", gonfs.NFSProcedure(c.header.Proc), s, s)
	}
}

// TestHomesStuck: where nothing of a home is answered any more, what comes after it
// over the same connection is, and calls about the home are told to come later.
func TestHomesStuck(t *testing.T) {
	s := startHomes(t, Limits{HomesNode: 2 * smallSize}, nil)
	c := s.mount(t)
	image, file := c.handle("/etc/passwd"), c.file("file")
	g := newGate(t)
	s.hooks.commit.Store(new(g.pass))
	commit := func() {
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureCommit), joined(fileHandle(file), number(0, 0, 0)))
	}
	commit()
	c.flush()
	<-g.arrived
	const jukebox = uint32(gonfs.NFSStatusJukebox)
	for _, call := range everyCall(c.client) {
		if call.prog != progNFS || call.proc == 0 {
			continue
		}
		proc := gonfs.NFSProcedure(call.proc)
		d := c.replyTo(c.record(proc, goodCall(c.client, proc, file)))[24:]
		if want := map[bool]int{true: 8, false: 4}[mutates(call.proc)]; len(d) < 4 || len(d) > 20 || len(d)-4 != want && proc != gonfs.NFSProcedureGetAttr && proc != gonfs.NFSProcedureRename && proc != gonfs.NFSProcedureLink {
			t.Errorf("%v: % x", proc, d)
		}
		if d := wire.NewDecoder(d); d.Uint32() != jukebox {
			t.Errorf("%v is not told to come later", proc)
		}
	}
	if status, _, _ := c.readAt(image, 0, 100); status != nfsOK {
		t.Errorf("READ of an image: status %d", status)
	}
	g.open()
	c.reply()
}

// TestOnceOnlyStuck repeats calls while there is no room for any: one that is under
// way, or done, is not told to come later, as the client would make it anew then.
func TestOnceOnlyStuck(t *testing.T) {
	s := startHomes(t, Limits{HomesNode: 2 * smallSize}, nil)
	c := s.mount(t)
	file := c.file("file")
	other := s.dial(t)
	mkdirs, commits := newGate(t), newGate(t)
	s.hooks.mkdir.Store(new(mkdirs.pass))
	s.hooks.commit.Store(new(commits.pass))
	record := c.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "dir"), attributes(0o755))
	c.sendRecord(record)
	<-mkdirs.arrived
	other.sendRecord(record)
	other.wantAlive() // no reply came before that
	mkdirs.open()
	first, err := c.receive()
	if err != nil {
		t.Fatal(err)
	}
	first = bytes.Clone(first)
	c.sendRecord(c.record(gonfs.NFSProcedureCommit, fileHandle(file), number(0, 0, 0)))
	<-commits.arrived
	if again := other.replyTo(record); !bytes.Equal(again, first) {
		t.Errorf("again: % x; want % x", again, first)
	}
	if d := wire.NewDecoder(other.replyTo(other.record(gonfs.NFSProcedureMkDir, lookupArgs(c.root, "new"), attributes(0o755)))[24:]); d.Uint32() != uint32(gonfs.NFSStatusJukebox) {
		t.Error("there is room, and nothing was tested")
	}
	commits.open()
	c.receive()
}

// TestHomeIsMadeAside: while one node's home is opened, other calls over the same
// connection are answered, and datagrams.
func TestHomeIsMadeAside(t *testing.T) {
	g := newGate(t)
	s := startHomes(t, Limits{}, func(h *exports.Homes) {
		open := h.Open
		h.Open = func(dir string) (fs.WritableTree, error) {
			g.pass()
			return open(dir)
		}
	})
	c := s.dial(t)
	c.push(progMount, 3, uint32(gonfs.MountProcMount), text("/home"))
	c.flush()
	<-g.arrived
	c.wantAlive()
	_, err := s.exports.Mount(s.exports.Peer(netip.MustParseAddrPort("127.0.0.1:1")), "/home", exports.Caller{Datagram: true})
	if fs.KindOf(err) != fs.ErrNotExist {
		t.Errorf("a datagram: %v", err)
	}
	g.open()
	if _, d := c.reply(); d.Uint32() != uint32(gonfs.MountStatusOk) {
		t.Error("the home is not mounted")
	}
}
