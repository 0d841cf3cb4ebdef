package nfs

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// eventually waits until a condition holds. How long that takes is no matter of
// the test; that it never does is.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (h *harness) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// idle returns how many connections wait for a call and hold nothing.
func (h *harness) idle() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		if c.idleSince.Load() != 0 {
			n++
		}
	}
	return n
}

// TestIncompleteCalls is about clients that begin a call and do not end it.
func TestIncompleteCalls(t *testing.T) {
	h := start(t, sample(), Limits{Record: 100 * time.Millisecond})
	other := h.dial(t)
	for name, send := range map[string]func(c net.Conn){
		"half a mark":   func(c net.Conn) { c.Write([]byte{0x80}) },
		"only a mark":   func(c net.Conn) { c.Write(mark(100, true)) },
		"half a record": func(c net.Conn) { c.Write(append(mark(100, true), make([]byte, 50)...)) },
		"half a large record": func(c net.Conn) {
			c.Write(append(mark(maxRecord, true), make([]byte, maxRecord/2)...))
		},
		"no last fragment": func(c net.Conn) { c.Write(append(mark(4, false), 1, 2, 3, 4)) },
		"byte by byte": func(c net.Conn) {
			for _, err := c.Write(mark(1<<20, true)); err == nil; _, err = c.Write([]byte{0}) {
				time.Sleep(10 * time.Millisecond)
			}
		},
		"a call and half of another": func(c net.Conn) {
			call := fragments(words(7, 0, 2, progNFS, 3, 0, 0, 0, 0, 0), 1000)
			c.Write(append(call, call[:20]...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(t)
			sent := make(chan struct{})
			go func() { send(c.conn); close(sent) }()
			if name == "a call and half of another" {
				c.reply()
			}
			c.wantClosed()
			<-sent
			other.wantAlive()
		})
	}
}

// TestIdleConnections is about clients that are silent between calls, who may be
// so for long, but not forever.
func TestIdleConnections(t *testing.T) {
	h := start(t, sample(), Limits{Idle: 3 * time.Second, Record: time.Hour})
	silent, busy := h.dial(t), h.dial(t)
	silent.wantAlive()
	closed := make(chan struct{})
	go func() { silent.wantClosed(); close(closed) }()
	for {
		busy.wantAlive() // for longer than a silent connection lives
		select {
		case <-closed:
			return
		default:
		}
	}
}

// Deadlines that passed while the connection was not waiting must not end it.
func TestStaleDeadlines(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	tree := &faultTree{Tree: sample(), lookup: func(name fs.Name) {
		if string(name) == "wait" {
			entered <- struct{}{}
			<-release
		}
	}}
	h := start(t, tree, Limits{})
	c := h.dial(t)
	root := c.mount("/")
	eventually(t, "the connection has waited, and so has deadlines", func() bool { return h.idle() == 1 })
	for range 3 {
		c.push(progNFS, 3, uint32(gonfs.NFSProcedureLookup), lookupArgs(root, "wait"))
		c.flush()
		select {
		case <-entered:
		case <-time.After(20 * time.Second):
			t.Fatal("the connection has ended")
		}
		h.mu.Lock()
		for conn := range h.conns {
			conn.out.deadline.until(time.Unix(1, 0))
			conn.tcp.SetReadDeadline(time.Unix(1, 0))
		}
		h.mu.Unlock()
		release <- struct{}{}
		c.reply()
	}
	c.wantAlive()
}

// TestClientThatNeverReads has one ask for a gigabyte in READs and read nothing,
// in all ways in which READs are answered: memory stays flat, others are served,
// and in the end it is dropped.
func TestClientThatNeverReads(t *testing.T) {
	content := fstest.Bytes(2 << 20)
	for name, tree := range ways(t, content) {
		t.Run(name, func(t *testing.T) {
			h := start(t, tree, Limits{Write: 300 * time.Millisecond})
			deaf, other := h.dial(t), h.dial(t)
			big := deaf.handle("/big")
			for range 1000 {
				deaf.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(big, 0, maxIO))
			}
			var before, during runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			sent := make(chan struct{})
			go func() {
				deaf.conn.Write(deaf.out.Bytes()) // fails in the end, or not
				close(sent)
			}()
			for h.connections() == 2 {
				if s, data, _ := other.readAt(big, 0, 4096); s != nfsOK || len(data) != 4096 {
					t.Fatalf("another client gets status %d", s)
				}
			}
			<-sent
			runtime.ReadMemStats(&during)
			if grown := int64(during.HeapSys) - int64(before.HeapSys); grown > 64<<20 {
				t.Errorf("memory has grown by %d MiB", grown>>20)
			}
		})
	}
}

// Many connections that ask and leave, in order or not, leave nothing behind.
func TestConnectionStorm(t *testing.T) {
	h := start(t, sample(), Limits{})
	root := h.dial(t).mount("/")
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			c, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			switch i % 4 {
			case 0: // leaves at once
			case 1:
				c.Write([]byte{0x80, 0})
			case 2:
				c.(*net.TCPConn).SetLinger(0) // with a reset
				c.Write(fragments(words(7, 0, 2, progNFS, 3, 0, 0, 0, 0, 0), 1000))
			case 3:
				call := append(words(7, 0, 2, progNFS, 3, 1, 0, 0, 0, 0, uint32(len(root))), root...)
				c.Write(fragments(call, 1000))
				if _, err := io.ReadFull(c, make([]byte, 4+24+4+attrSize)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	eventually(t, "only the first connection is left", func() bool { return h.connections() == 1 })
}

func TestTooManyConnections(t *testing.T) {
	const limit = 8
	h := start(t, sample(), Limits{Conns: limit})
	var clients []*client
	for range limit {
		c := h.dial(t)
		c.wantAlive()
		n := len(clients) + 1
		eventually(t, "it is idle", func() bool { return h.idle() == n })
		clients = append(clients, c)
	}
	clients[0].wantAlive() // so the second has been idle longest
	eventually(t, "it is idle again", func() bool { return h.idle() == limit })
	late := h.dial(t)
	late.wantAlive()
	clients[1].wantClosed()
	for i, c := range clients {
		if i != 1 {
			c.wantAlive()
		}
	}

	// Connections in the middle of something do not make room.
	for _, c := range append(clients[2:], clients[0], late) {
		c.conn.Write([]byte{0})
	}
	eventually(t, "none is idle", func() bool { return h.idle() == 0 })
	h.dial(t).wantClosed()
	if h.logs.FilterMessage("too many connections, and none of them idle").Len() != 1 {
		t.Error("the refusal is not logged")
	}
}

// scarceListener is a listener that runs out of descriptors for a while.
type scarceListener struct {
	net.Listener
	failures int
}

func (l *scarceListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAcceptFailures(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := startOn(t, &scarceListener{ln, 3}, sample(), Limits{})
	h.dial(t).wantAlive()
	if h.logs.FilterMessage("cannot accept a connection").Len() != 3 {
		t.Error("not logged")
	}
}

func TestServeFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	h := start(t, sample(), Limits{})
	if err := h.Serve(context.Background(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// TestShutdown stops a server with calls in hand: those are answered, idle
// connections are closed, new ones refused.
func TestShutdown(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	tree := &faultTree{Tree: sample(), read: func(_ fs.NodeID, nowait bool) error {
		if nowait {
			return fs.ErrWouldBlock
		}
		close(entered)
		<-release
		return nil
	}}
	h := start(t, tree, Limits{Drain: time.Hour})
	idle, busy, half := h.dial(t), h.dial(t), h.dial(t)
	idle.wantAlive()
	half.conn.Write([]byte{0x80})
	busy.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(busy.handle("/etc/passwd"), 0, 100))
	busy.flush()
	<-entered
	stopped := make(chan struct{})
	go func() { h.stop(); close(stopped) }()
	idle.wantClosed()
	half.wantClosed()
	if _, err := net.Dial("tcp", h.addr); err == nil {
		t.Error("a new connection is accepted")
	}
	select {
	case <-stopped:
		t.Error("Serve has returned with a call in hand")
	default:
	}
	close(release)
	if _, d := busy.reply(); d.Uint32() != nfsOK {
		t.Error("the call in hand failed")
	}
	busy.wantClosed()
	<-stopped
}

// What does not end by itself ends when the patience does.
func TestShutdownForced(t *testing.T) {
	tree := newFileTree(t, fstest.Bytes(4<<20))
	h := start(t, tree, Limits{Drain: 50 * time.Millisecond})
	deaf := h.dial(t)
	big := deaf.handle("/big")
	for range 100 {
		deaf.push(progNFS, 3, uint32(gonfs.NFSProcedureRead), readArgsOf(big, 0, maxIO))
	}
	deaf.flush()
	if _, err := deaf.conn.Read(make([]byte, 1)); err != nil { // it is being answered
		t.Fatal(err)
	}
	h.stop()
}

// Two listeners of one server stop each on its own.
func TestTwoListeners(t *testing.T) {
	h := start(t, sample(), Limits{})
	first := h.dial(t)
	first.wantAlive()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.Serve(ctx, ln) }()
	second := dial(t, ln.Addr().String())
	second.wantAlive()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	second.wantClosed()
	first.wantAlive()
}

// A thousand connections that wait hold no buffers.
func TestIdleConnectionsHoldNothing(t *testing.T) {
	const n = 1000
	h := start(t, sample(), Limits{})
	conns := make([]net.Conn, n)
	null := fragments(words(7, 0, 2, progNFS, 3, 0, 0, 0, 0, 0), 1000)
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // a pool lets go of what was not used for two collections
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before := heap()
	for i := range conns {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	for _, c := range conns {
		c.Write(null)
	}
	for _, c := range conns {
		if _, err := io.ReadFull(c, make([]byte, 28)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are idle", func() bool { return h.idle() == n })
	if each := (heap() - before) / n; each > 16<<10 {
		t.Errorf("%d bytes for each connection and its client", each)
	}
}

// A call larger than usual waits while others are being received, and then gets
// through.
func TestLargeCallsAreBounded(t *testing.T) {
	h := start(t, sample(), Limits{Incoming: largeSize})
	file := h.dial(t).handle("/etc/passwd")
	data := make([]byte, maxIO)
	var all sync.WaitGroup
	for range 8 {
		c := h.dial(t)
		all.Go(func() {
			for range 4 {
				c.push(progNFS, 3, uint32(gonfs.NFSProcedureWrite), func(e *wire.Encoder) {
					e.Opaque(file)
					e.Uint64(0)
					e.Uint32(maxIO)
					e.Uint32(2)
					e.Opaque(data)
				})
				if _, err := c.conn.Write(c.out.Bytes()); err != nil {
					t.Error(err)
				}
				c.out.Truncate(0)
				if _, err := c.receive(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// A call that is given back holds on to no tree, so that one can be dropped.
func TestFreedCallsForget(t *testing.T) {
	tree := newFileTree(t, fstest.Bytes(100_000))
	h := start(t, tree, Limits{})
	c := h.dial(t)
	loopback := netip.MustParseAddrPort("127.0.0.1:1")
	for _, call := range everyCall(c) {
		server := h.newCall(h.exports.Peer(loopback), loopback, loopback)
		c.out.Truncate(0)
		c.header(call.prog, call.vers, call.proc)
		call.args(&c.out)
		server.answer(c.out.Bytes())
		c.out.Truncate(0)
		server.spans[0], server.nspans = fs.Span{File: tree.file}, 1 // as a large READ does
		h.freeCall(server)
		if server.obj.Tree != nil || server.obj2.Tree != nil || server.spans[0].File != nil || server.entries[0].Name != nil {
			t.Errorf("%s leaves something behind", call.name)
		}
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(10)
	b.take(4)
	if !b.tryTake(6) || b.tryTake(1) {
		t.Error("tryTake")
	}
	order := make(chan int, 2)
	go func() { b.take(8); order <- 1 }()
	waiters := func() int { b.mu.Lock(); defer b.mu.Unlock(); return len(b.waiting) }
	eventually(t, "one waits", func() bool { return waiters() == 1 })
	go func() { b.take(2); order <- 2 }()
	eventually(t, "two wait", func() bool { return waiters() == 2 })
	b.give(4)
	if b.tryTake(1) || waiters() != 2 {
		t.Error("somebody was served before whoever came first")
	}
	b.give(6)
	<-order
	<-order
	b.give(10)
	b.take(1000) // more than there is, but nobody else has any
	if b.tryTake(1) {
		t.Error("tryTake beside more than all")
	}
	b.give(1000)
	if b.free != b.total || waiters() != 0 {
		t.Errorf("%d free of %d", b.free, b.total)
	}
}
