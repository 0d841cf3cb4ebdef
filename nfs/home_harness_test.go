package nfs

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	gonfs "github.com/willscott/go-nfs"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/hostdir"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// homeServer is a server of homes on loopback, with an image beside them.
type homeServer struct {
	*harness
	dir   string // of the homes
	hooks *homeHooks
}

// homeHooks are called, if they are set, before calls. They may wait or panic.
type homeHooks struct {
	mkdir, commit, write, splice atomic.Pointer[func()]
	unspliced                    atomic.Bool // the host cannot splice
}

func runHook(hook *atomic.Pointer[func()]) {
	if f := hook.Load(); f != nil {
		(*f)()
	}
}

// faultHome is a tree with hooks.
type faultHome struct {
	fs.WritableTree
	*homeHooks
}

func (t faultHome) Mkdir(c *fs.Cred, dir fs.Handle, name fs.Name, s *fs.SetAttr, a *fs.Attr) (fs.Handle, fs.Change, error) {
	runHook(&t.mkdir)
	return t.WritableTree.Mkdir(c, dir, name, s, a)
}

func (t faultHome) Commit(c *fs.Cred, h fs.Handle) (fs.Change, fs.Verifier, error) {
	runHook(&t.commit)
	return t.WritableTree.Commit(c, h)
}

func (t faultHome) Write(c *fs.Cred, h fs.Handle, off uint64, p []byte, how fs.Stability) (fs.Change, fs.Verifier, error) {
	runHook(&t.write)
	return t.WritableTree.Write(c, h, off, p, how)
}

func (t faultHome) WriteSpliced(c *fs.Cred, h fs.Handle, off uint64, n, pipe int) (fs.Change, fs.Verifier, error) {
	runHook(&t.splice)
	if t.unspliced.Load() {
		return fs.Change{}, fs.Verifier{}, fs.ErrInvalid
	}
	return t.WritableTree.WriteSpliced(c, h, off, n, pipe)
}

// startHomes starts a server of homes; all is as serve has it by default, but for
// root, who is root, and for the ports of nodes.
func startHomes(t testing.TB, limits Limits, change func(*exports.Homes)) *homeServer {
	t.Helper()
	host, err := hostdir.NewHost(hostdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	s := &homeServer{dir: t.TempDir(), hooks: &homeHooks{}}
	homes := exports.Homes{
		Dir:     s.dir,
		AnyPort: true,
		Squash:  exports.SquashNone,
		AnonUID: fs.Nobody,
		AnonGID: fs.Nobody,
		Open: func(dir string) (fs.WritableTree, error) {
			tree, err := host.Open(dir)
			if err != nil {
				return nil, err
			}
			return faultHome{tree, s.hooks}, nil
		},
	}
	if change != nil {
		change(&homes)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.harness = startExports(t, ln, newExports(t, sample(), &homes), limits)
	return s
}

// homeClient is a node that has mounted its home.
type homeClient struct {
	*client
	root []byte
	dir  string // the home on the host
}

func (s *homeServer) mountFrom(t testing.TB, node string) *homeClient {
	t.Helper()
	c := dialFrom(t, s.addr, node)
	return &homeClient{client: c, root: c.mount("/home"), dir: filepath.Join(s.dir, node)}
}

func (s *homeServer) mount(t testing.TB) *homeClient { return s.mountFrom(t, "127.0.0.1") }

// host is the path of something in the home on the host.
func (c *homeClient) host(name string) string { return filepath.Join(c.dir, name) }

// results are those of a call that changes something, or LOOKUP.
type results struct {
	status    uint32
	handle    []byte
	attr      []byte // of what was made
	before    [2]bool
	after     [2][]byte // attributes
	count     uint32
	committed uint32
	verifier  uint64
}

// decodeResults decodes the results of proc, to the last byte.
func decodeResults(t testing.TB, proc gonfs.NFSProcedure, d *wire.Decoder) (r results) {
	t.Helper()
	r.status = d.Uint32()
	wcc := func(i int) {
		if r.before[i] = d.Bool(); r.before[i] {
			d.FixedOpaque(24)
		}
		r.after[i] = bytes.Clone(attrOf(d))
	}
	ok := r.status == nfsOK
	switch proc {
	case gonfs.NFSProcedureCreate, gonfs.NFSProcedureMkDir, gonfs.NFSProcedureSymlink, gonfs.NFSProcedureMkNod:
		if ok && d.Bool() {
			r.handle = bytes.Clone(d.Opaque(64))
		}
		if ok {
			r.attr = bytes.Clone(attrOf(d))
		}
		wcc(0)
	case gonfs.NFSProcedureLink:
		r.after[0] = bytes.Clone(attrOf(d))
		wcc(1)
	case gonfs.NFSProcedureRename:
		wcc(0)
		wcc(1)
	case gonfs.NFSProcedureWrite:
		wcc(0)
		if ok {
			r.count, r.committed, r.verifier = d.Uint32(), d.Uint32(), d.Uint64()
		}
	case gonfs.NFSProcedureCommit:
		wcc(0)
		if ok {
			r.verifier = d.Uint64()
		}
	case gonfs.NFSProcedureLookup:
		if ok {
			r.handle = bytes.Clone(d.Opaque(64))
			r.attr = bytes.Clone(attrOf(d))
		}
		r.after[0] = bytes.Clone(attrOf(d))
	default:
		wcc(0)
	}
	if !d.Done() {
		t.Errorf("%v: malformed, %d bytes left", proc, d.Len())
	}
	return r
}

// do makes a call that changes something, or LOOKUP.
func (c *homeClient) do(proc gonfs.NFSProcedure, args ...func(*wire.Encoder)) results {
	c.t.Helper()
	return decodeResults(c.t, proc, c.nfs(proc, joined(args...)))
}

// must is do for a call that succeeds.
func (c *homeClient) must(proc gonfs.NFSProcedure, args ...func(*wire.Encoder)) results {
	c.t.Helper()
	r := c.do(proc, args...)
	if r.status != nfsOK {
		c.t.Fatalf("%v: status %d", proc, r.status)
	}
	return r
}

// file makes a file, and returns its handle.
func (c *homeClient) file(name string) []byte {
	c.t.Helper()
	return c.must(gonfs.NFSProcedureCreate, lookupArgs(c.root, name), number(0), attributes(0o644)).handle
}

func (c *homeClient) find(name string) []byte {
	c.t.Helper()
	return c.must(gonfs.NFSProcedureLookup, lookupArgs(c.root, name)).handle
}

// wantFile fails unless the file on the host has that content.
func (c *homeClient) wantFile(name string, want []byte) {
	c.t.Helper()
	got, err := os.ReadFile(c.host(name))
	if err != nil || !bytes.Equal(got, want) {
		c.t.Errorf("%s has %d bytes, %v; want other %d", name, len(got), err, len(want))
	}
}

// Arguments.

func joined(parts ...func(*wire.Encoder)) func(*wire.Encoder) {
	return func(e *wire.Encoder) {
		for _, p := range parts {
			p(e)
		}
	}
}

func fileHandle(h []byte) func(*wire.Encoder) { return func(e *wire.Encoder) { e.Opaque(h) } }

func number(v ...uint32) func(*wire.Encoder) {
	return func(e *wire.Encoder) {
		for _, v := range v {
			e.Uint32(v)
		}
	}
}

func text(s string) func(*wire.Encoder) { return func(e *wire.Encoder) { e.String(s) } }

// attributes is a sattr3 with a mode alone.
func attributes(mode uint32) func(*wire.Encoder) { return number(1, mode, 0, 0, 0, 0, 0) }

// writeArgs are those of a WRITE whose count is that of the bytes.
func writeArgs(h []byte, off uint64, stable uint32, data []byte) func(*wire.Encoder) {
	return func(e *wire.Encoder) {
		e.Opaque(h)
		e.Uint64(off)
		e.Uint32(uint32(len(data)))
		e.Uint32(stable)
		e.Opaque(data)
	}
}
