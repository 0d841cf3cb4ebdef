package nfs

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// oneVersion is an exports.Store with one version.
type oneVersion struct{ tree fs.Tree }

func (s oneVersion) Versions() ([]exports.Version, error) {
	var digest fs.Digest // a tree's identity is the beginning of its digest
	binary.BigEndian.PutUint64(digest[:], s.tree.FSID())
	return []exports.Version{{
		Name:   "v1",
		Digest: digest,
		Open:   func() (fs.Tree, error) { return s.tree, nil },
	}}, nil
}

// newExports returns exports of a tree, and of homes if that is not nil.
func newExports(t testing.TB, tree fs.Tree, homes *exports.Homes) *exports.Exports {
	t.Helper()
	x, err := exports.New(exports.Config{
		Images: []exports.Image{{Name: "images", Dir: "/srv/images", StateDir: t.TempDir(), Versions: oneVersion{tree}}},
		Allow:  exports.DefaultAllow(),
		Homes:  homes,
		Log:    zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// harness is a server on loopback over a tree. When the test ends it is shut
// down, and must then hold nothing any more.
type harness struct {
	*Server
	addr string
	logs *observer.ObservedLogs
	stop func() // ends Serve and waits for it
}

func start(t testing.TB, tree fs.Tree, limits Limits) *harness {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, ln, tree, limits)
}

func startOn(t testing.TB, ln net.Listener, tree fs.Tree, limits Limits) *harness {
	t.Helper()
	return startExports(t, ln, newExports(t, tree, nil), limits)
}

func startExports(t testing.TB, ln net.Listener, x *exports.Exports, limits Limits) *harness {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	h := &harness{addr: ln.Addr().String(), logs: logs}
	h.Server = New(Config{
		Exports: x,
		Log:     zap.New(core),
		Ports:   anyPorts,
		Limits:  limits,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, ln) }()
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if len(h.conns) != 0 {
			t.Errorf("%d connections left", len(h.conns))
		}
		for name, b := range map[string]*budget{"pending": h.pending, "homes": h.homes, "incoming": h.incoming} {
			if b.free != b.total {
				t.Errorf("%d bytes of %s not given back", b.total-b.free, name)
			}
		}
		if len(h.disk) != 0 {
			t.Errorf("%d tokens for the disk not given back", len(h.disk))
		}
	}
	t.Cleanup(h.stop)
	return h
}

type observedEntry = observer.LoggedEntry

// client is a raw RPC client. It allocates nothing once it is made.
type client struct {
	t    testing.TB
	conn net.Conn
	cred func(*wire.Encoder)
	xid  uint32
	out  wire.Encoder
	in   []byte
	rest []byte // of in: bytes that have arrived and not been used
	d    wire.Decoder
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	return dialWith(t, addr, &net.Dialer{})
}

// dialFrom connects from an address of this machine: any node that is wanted, of
// those in 127.0.0.0/8.
func dialFrom(t testing.TB, addr, node string) *client {
	t.Helper()
	return dialWith(t, addr, &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(node)}})
}

func dialWith(t testing.TB, addr string, dialer *net.Dialer) *client {
	t.Helper()
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &client{t: t, conn: conn, cred: authSys(0, 0), in: make([]byte, 4<<20)}
	c.out.Reset(make([]byte, 2<<20))
	// A test that goes wrong should say so rather than hang.
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return c
}

func (h *harness) dial(t testing.TB) *client { return dial(t, h.addr) }

func authNone(e *wire.Encoder) {
	e.Uint32(wire.AuthNone)
	e.Uint32(0)
}

func authSys(uid, gid uint32, groups ...uint32) func(*wire.Encoder) {
	return func(e *wire.Encoder) {
		e.Uint32(wire.AuthSys)
		e.Uint32(uint32(4 + 4 + 4 + 4 + 4 + 4 + 4*len(groups)))
		e.Uint32(0)
		e.String("node")
		e.Uint32(uid)
		e.Uint32(gid)
		e.Uint32(uint32(len(groups)))
		for _, g := range groups {
			e.Uint32(g)
		}
	}
}

// header appends a call's header with the credentials of c.
func (c *client) header(prog, vers, proc uint32) {
	c.xid++
	for _, v := range [...]uint32{c.xid, 0, 2, prog, vers, proc} {
		c.out.Uint32(v)
	}
	c.cred(&c.out)
	authNone(&c.out)
}

// push appends a call to what flush sends.
func (c *client) push(prog, vers, proc uint32, args func(*wire.Encoder)) {
	mark := c.out.BeginRecord()
	c.header(prog, vers, proc)
	if args != nil {
		args(&c.out)
	}
	c.out.EndRecord(mark, 0)
}

func (c *client) flush() {
	c.t.Helper()
	if _, err := c.conn.Write(c.out.Bytes()); err != nil {
		c.t.Fatal(err)
	}
	c.out.Truncate(0)
}

var errFragmented = errors.New("a reply that is not one last fragment")

// receive returns the next reply, valid until the one after it.
func (c *client) receive() ([]byte, error) {
	for {
		if len(c.rest) >= 4 {
			m := binary.BigEndian.Uint32(c.rest)
			n := int(m &^ (1 << 31))
			if m>>31 == 0 {
				return nil, errFragmented
			}
			if len(c.rest) >= 4+n {
				reply := c.rest[4 : 4+n]
				c.rest = c.rest[4+n:]
				return reply, nil
			}
		}
		have := copy(c.in, c.rest)
		n, err := c.conn.Read(c.in[have:])
		c.rest = c.in[:have+n]
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// reply returns the next reply to an accepted and successful call.
func (c *client) reply() (xid uint32, d *wire.Decoder) {
	c.t.Helper()
	xid, stat, d := c.outcome()
	if stat != wire.Success {
		c.t.Fatalf("accept_stat %d", stat)
	}
	return xid, d
}

func (c *client) outcome() (xid uint32, stat wire.AcceptStat, d *wire.Decoder) {
	c.t.Helper()
	msg, err := c.receive()
	if err != nil {
		c.t.Fatal(err)
	}
	c.d = wire.NewDecoder(msg)
	xid, stat, ok := c.d.ReplyHeader()
	if !ok {
		c.t.Fatalf("denied or malformed: %x", msg)
	}
	return xid, stat, &c.d
}

// call makes one call and returns its results.
func (c *client) call(prog, vers, proc uint32, args func(*wire.Encoder)) *wire.Decoder {
	c.t.Helper()
	c.push(prog, vers, proc, args)
	c.flush()
	xid, d := c.reply()
	if xid != c.xid {
		c.t.Fatalf("xid %d, want %d", xid, c.xid)
	}
	return d
}

func (c *client) nfs(proc gonfs.NFSProcedure, args func(*wire.Encoder)) *wire.Decoder {
	c.t.Helper()
	return c.call(progNFS, 3, uint32(proc), args)
}

// mount returns the handle of a path.
func (c *client) mount(path string) []byte {
	c.t.Helper()
	d := c.call(progMount, 3, uint32(gonfs.MountProcMount), func(e *wire.Encoder) { e.String(path) })
	if status := d.Uint32(); status != 0 {
		c.t.Fatalf("mount %s: status %d", path, status)
	}
	return append([]byte(nil), d.Opaque(64)...)
}

// handle returns the handle of the object at a path.
func (c *client) handle(path string) []byte {
	c.t.Helper()
	h := c.mount("/")
	for _, name := range splitNames(path) {
		d := c.nfs(gonfs.NFSProcedureLookup, func(e *wire.Encoder) {
			e.Opaque(h)
			e.String(name)
		})
		if status := d.Uint32(); status != 0 {
			c.t.Fatalf("lookup %s of %s: status %d", name, path, status)
		}
		h = append([]byte(nil), d.Opaque(64)...)
	}
	return h
}

func splitNames(path string) []string {
	var names []string
	for start, i := 0, 0; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			if i > start {
				names = append(names, path[start:i])
			}
			start = i + 1
		}
	}
	return names
}

// readAt reads once from a file.
func (c *client) readAt(handle []byte, off uint64, count uint32) (status uint32, data []byte, eof bool) {
	c.t.Helper()
	return decodeRead(c.t, c.nfs(gonfs.NFSProcedureRead, readArgsOf(handle, off, count)))
}

func readArgsOf(handle []byte, off uint64, count uint32) func(*wire.Encoder) {
	return func(e *wire.Encoder) {
		e.Opaque(handle)
		e.Uint64(off)
		e.Uint32(count)
	}
}

func decodeRead(t testing.TB, d *wire.Decoder) (status uint32, data []byte, eof bool) {
	t.Helper()
	status = d.Uint32()
	if d.Bool() {
		d.FixedOpaque(attrSize)
	}
	if status == 0 {
		count := d.Uint32()
		eof = d.Bool()
		data = d.Opaque(maxIO)
		if int(count) != len(data) {
			t.Errorf("count %d, but %d bytes", count, len(data))
		}
	}
	if !d.Done() {
		t.Errorf("malformed READ reply, %d bytes left", d.Len())
	}
	return status, data, eof
}

// wantClosed fails unless the server has closed the connection.
func (c *client) wantClosed() {
	c.t.Helper()
	if msg, err := c.receive(); err == nil {
		c.t.Errorf("got a reply, want the connection closed: %x", msg)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		c.t.Error("the connection stays open")
	}
}

// wantAlive fails unless the connection still works.
func (c *client) wantAlive() {
	c.t.Helper()
	c.call(progNFS, 3, 0, nil)
}

func sample() *fstest.MemTree { return fstest.Sample().Mem(42) }
