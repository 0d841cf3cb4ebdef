package exports

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/layer"
)

// filesFunc is NodeFiles that a test decides on.
type filesFunc func(n Mounting) ([]layer.File, []error)

func (f filesFunc) Files(n Mounting, _ fs.Tree) ([]layer.File, []error) { return f(n) }

// hostnames gives each node one file with its name, or its address if it has none.
func hostnames(n Mounting) ([]layer.File, []error) {
	who := n.Name
	if who == "" {
		who = n.Address.String()
	}
	return []layer.File{{Path: "/etc/hostname", Mode: 0o600, Mtime: fs.Time{Sec: 7}, Content: who}}, nil
}

// layered is a server whose nodes have files of their own.
type layered struct {
	*served
	logs *observer.ObservedLogs
	make filesFunc
	any  bool // ports will do
}

func serveLayers(t testing.TB, make filesFunc, seal ...string) *layered {
	t.Helper()
	s := &layered{served: &served{store: &memStore{}, stateDir: t.TempDir()}, make: make}
	for i, name := range seal {
		s.store.seal(name, byte('a'+i))
	}
	s.restart(t)
	return s
}

func (s *layered) restart(t testing.TB) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	image := Image{Name: "images", Dir: "/srv/images", StateDir: s.stateDir, Versions: s.store, AnyPort: s.any}
	if s.make != nil {
		image.Files = s.make
	}
	x, err := New(Config{
		Images: []Image{image},
		Allow:  DefaultAllow(),
		Log:    zap.New(core),
	})
	if err != nil {
		t.Fatal(err)
	}
	x.neighbours = filepath.Join(s.stateDir, "arp")
	s.Exports, s.logs = x, logs
	s.peer = s.at(host)
}

func (s *layered) at(addr string) *Peer {
	return s.Peer(netip.AddrPortFrom(netip.MustParseAddr(addr), 1023))
}

// name names nodes by their addresses.
func (s *layered) name(t testing.TB, nodes map[string]string) {
	t.Helper()
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Entries = nil
		for addr, name := range nodes {
			inv.Entries = append(inv.Entries, Entry{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(addr)}})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.refreshIfPromoted()
}

func (s *layered) mountAs(t testing.TB, p *Peer) []byte {
	t.Helper()
	h, err := s.Mount(p, "/", Caller{Booting: true})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// handle follows a path from a handle as p, and returns the handle there.
func (s *layered) handle(t testing.TB, p *Peer, h []byte, path string) ([]byte, error) {
	t.Helper()
	for name := range strings.SplitSeq(path, "/") {
		var o Object
		if err := s.Resolve(p, h, &o); err != nil {
			return nil, err
		}
		id, err := o.Tree.Lookup(&fs.Cred{}, o.ID, fs.Name(name))
		if err != nil {
			return nil, err
		}
		h = o.AppendHandle(nil, id)
	}
	return h, nil
}

// contentAt reads a file by its handle as p.
func (s *layered) contentAt(p *Peer, h []byte) (string, error) {
	var o Object
	if err := s.Resolve(p, h, &o); err != nil {
		return "", err
	}
	b := make([]byte, 64)
	n, _, err := o.Tree.Read(&fs.Cred{}, o.ID, 0, b, true)
	return string(b[:n]), err
}

// get reads the file at a path below a handle as p.
func (s *layered) get(t testing.TB, p *Peer, h []byte, path string) (string, error) {
	t.Helper()
	h, err := s.handle(t, p, h, path)
	if err != nil {
		return "", err
	}
	return s.contentAt(p, h)
}

func (s *layered) expect(t testing.TB, p *Peer, h []byte, path, want string) {
	t.Helper()
	if got, err := s.get(t, p, h, path); got != want || err != nil {
		t.Errorf("%s at %s: %q, %v; want %q", path, p.Addr(), got, err, want)
	}
}

// said returns the lines of the log that have a text.
func (s *layered) said(text string) int {
	n := 0
	for _, e := range s.logs.All() {
		if strings.Contains(fmt.Sprint(e.Message, e.ContextMap()), text) {
			n++
		}
	}
	return n
}

// layerFilesOf lists what is kept.
func (s *layered) kept(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.stateDir, layerDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

const secondHost, thirdHost = "10.1.2.4", "10.1.2.5"

func TestNodesHaveFilesOfTheirOwn(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.name(t, map[string]string{host: "pi-01", secondHost: "pi-02"})
	handles := map[string]string{}
	for addr, want := range map[string]string{host: "pi-01", secondHost: "pi-02", thirdHost: thirdHost} {
		p := s.at(addr)
		h := s.mountAs(t, p)
		if len(h) > MaxHandle || len(h)%4 != 0 || h[1] != kindLayer {
			t.Errorf("handle %x", h)
		}
		handles[string(h)] = addr
		s.expect(t, p, h, "etc/hostname", want)
		s.expect(t, p, h, "etc/issue", "a")
		deeper, err := s.Mount(p, "/etc", Caller{})
		if err != nil {
			t.Fatal(err)
		}
		s.expect(t, p, deeper, "hostname", want)
	}
	if len(handles) != 3 {
		t.Errorf("%d handles for three nodes", len(handles))
	}
	// The version itself is as it was.
	plain := serve(t, "v1")
	if _, err := plain.read(t, plain.mount(t, "/")); err != nil {
		t.Error(err)
	}
}

// TestStolenHandle: a handle of one node shows another nothing that is the first one's own, by no
// way: not the content, not the attributes, not that the names are there.
func TestStolenHandle(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.name(t, map[string]string{host: "pi-01", secondHost: "pi-02"})
	owner := s.at(host)
	root := s.mountAs(t, owner)
	etc, err := s.handle(t, owner, root, "etc")
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.handle(t, owner, etc, "hostname")
	if err != nil {
		t.Fatal(err)
	}
	var mine Object
	if err := s.Resolve(owner, etc, &mine); err != nil {
		t.Fatal(err)
	}
	for _, thief := range []*Peer{s.at(secondHost), s.at(thirdHost)} {
		s.mountAs(t, thief)
		for range 2 { // the second time nothing has to be opened
			var o Object
			if err := s.Resolve(thief, own, &o); err != fs.ErrAccess {
				t.Errorf("%s: Resolve of an own file: %v; want ErrAccess", thief.Addr(), err)
			}
			if err := s.Resolve(thief, etc, &o); err != nil {
				t.Fatal(err)
			}
			if o.Tree.FSID() != mine.Tree.FSID() {
				t.Error("the identity of the tree depends on who asks")
			}
			if _, err := o.Tree.Lookup(&fs.Cred{}, o.ID, fs.Name("hostname")); err != fs.ErrNotExist {
				t.Errorf("%s: Lookup: %v; want ErrNotExist", thief.Addr(), err)
			}
			entries := make([]fs.DirEntry, 9)
			n, _, err := o.Tree.ReadDir(&fs.Cred{}, o.ID, 0, entries)
			if err != nil || n != 3 {
				t.Errorf("%s: %d entries, %v; want those of the version, 3", thief.Addr(), n, err)
			}
			id := fs.NodeID(binary.BigEndian.Uint64(own[16:]))
			if err := o.Tree.Getattr(id, new(fs.Attr)); err != fs.ErrAccess {
				t.Errorf("%s: Getattr: %v; want ErrAccess", thief.Addr(), err)
			}
			if _, _, err := o.Tree.Read(&fs.Cred{}, id, 0, make([]byte, 9), false); err != fs.ErrAccess {
				t.Errorf("%s: Read: %v; want ErrAccess", thief.Addr(), err)
			}
		}
		s.expect(t, thief, root, "etc/issue", "a")
	}
	stranger := s.at("203.0.113.9")
	if err := s.Resolve(stranger, root, new(Object)); err != fs.ErrAccess {
		t.Errorf("from an address that is not allowed: %v", err)
	}
	s.expect(t, owner, root, "etc/hostname", "pi-01")
}

// TestNodePorts: who calls from a port that any user of a node can have sees nothing of what is the node's own, whatever
// the call says of who makes it, and changes nothing of what is known of the node's layer.
func TestNodePorts(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.name(t, map[string]string{host: "pi-01"})
	user := s.Peer(netip.AddrPortFrom(s.peer.addr, 1024))
	if h := s.mountAs(t, user); h[1] != kindVersion || len(s.kept(t)) > 0 {
		t.Errorf("mounted by a user: handle %x, kept: %v", h, s.kept(t))
	}
	root := s.mountAs(t, s.peer)
	own, err := s.handle(t, s.peer, root, "etc/hostname")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing has to be opened
		if err := s.Resolve(user, own, new(Object)); err != fs.ErrAccess {
			t.Errorf("an own file: %v; want ErrAccess", err)
		}
		if _, err := s.handle(t, user, root, "etc/hostname"); err != fs.ErrNotExist {
			t.Errorf("its name: %v; want ErrNotExist", err)
		}
		s.expect(t, user, root, "etc/issue", "a")
		s.expect(t, s.peer, root, "etc/hostname", "pi-01")
		s.restart(t)
		user = s.Peer(netip.AddrPortFrom(s.peer.addr, 1024))
	}
	s.mountAs(t, s.peer)
	s.mountAs(t, user)
	s.mountAs(t, s.Peer(netip.AddrPortFrom(netip.MustParseAddr(secondHost), 40_000)))
	if n := s.said("--node-ports any"); n != 1 {
		t.Errorf("what to do is said %d times: %v", n, s.logs.All())
	}
	s.name(t, nil)
	s.expect(t, s.peer, root, "etc/hostname", "pi-01") // by what it mounted last, which the user's mount is not

	s.any = true
	s.restart(t)
	s.name(t, map[string]string{host: "pi-01"})
	user = s.Peer(netip.AddrPortFrom(s.peer.addr, 1024))
	s.expect(t, user, root, "etc/hostname", "pi-01")
	s.expect(t, user, s.mountAs(t, user), "etc/hostname", "pi-01")
}

func TestLayerHandlesAreAuthentic(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	h := s.mountAs(t, s.peer)
	var o Object
	for bit := range len(h) * 8 {
		forged := bytes.Clone(h)
		forged[bit/8] ^= 1 << (bit % 8)
		if err := s.Resolve(s.peer, forged, &o); err != fs.ErrBadHandle {
			t.Errorf("bit %d flipped: %v; want ErrBadHandle", bit, err)
		}
	}
	for n := range len(h) {
		if err := s.Resolve(s.peer, h[:n], &o); err != fs.ErrBadHandle {
			t.Errorf("cut to %d bytes: %v; want ErrBadHandle", n, err)
		}
	}
	if err := s.Resolve(s.peer, append(bytes.Clone(h), 0, 0, 0, 0), &o); err != fs.ErrBadHandle {
		t.Errorf("made longer: %v; want ErrBadHandle", err)
	}
}

// TestNodesWithoutFiles have the handles that they always had.
func TestNodesWithoutFiles(t *testing.T) {
	problem := errors.New("_all/x: a symlink")
	s := serveLayers(t, func(n Mounting) ([]layer.File, []error) {
		if n.Address == netip.MustParseAddr(secondHost) {
			return nil, []error{problem}
		}
		return nil, nil
	}, "v1")
	plain := serveLayers(t, nil, "v1")
	plain.stateDir = s.stateDir
	plain.restart(t)
	for _, addr := range []string{host, secondHost} {
		h := s.mountAs(t, s.at(addr))
		if want := plain.mountAs(t, plain.at(addr)); !bytes.Equal(h, want) || h[1] != kindVersion {
			t.Errorf("handle %x, want %x", h, want)
		}
	}
	if s.said(problem.Error()) != 1 {
		t.Errorf("what is wrong with the files is not said: %v", s.logs.All())
	}
	if len(s.kept(t)) > 0 {
		t.Errorf("there is %v", s.kept(t))
	}
}

// TestDatagramsGetNoFiles: whose they are is not certain.
func TestDatagramsGetNoFiles(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	h, err := s.Mount(s.peer, "/", Caller{Datagram: true})
	if err != nil || h[1] != kindVersion || len(s.kept(t)) > 0 {
		t.Errorf("handle %x, %v, kept: %v", h, err, s.kept(t))
	}
	if h := s.mountAs(t, s.at("fe80::1")); h[1] != kindVersion {
		t.Errorf("a link-local address got files: %x", h)
	}
}

// attrOf returns the attributes of the file at a path below a handle.
func (s *layered) attrOf(t testing.TB, p *Peer, h []byte, path string) (a fs.Attr) {
	t.Helper()
	h, err := s.handle(t, p, h, path)
	var o Object
	if err == nil {
		err = s.Resolve(p, h, &o)
	}
	if err == nil {
		err = o.Tree.Getattr(o.ID, &a)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestLayersSurviveRestart: the same handles are the same files, without anybody making them again; and only
// the owner of the server's files can read them.
func TestLayersSurviveRestart(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	h := s.mountAs(t, s.peer)
	own, _ := s.handle(t, s.peer, h, "etc/hostname")
	before := s.attrOf(t, s.peer, h, "etc/hostname")
	dir := s.attrOf(t, s.peer, h, "etc")
	for path, want := range map[string]os.FileMode{filepath.Join(s.stateDir, layerDir): 0o700, s.kept(t)[0]: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}

	files := s.make
	s.make = func(Mounting) ([]layer.File, []error) { t.Error("files were made anew"); return nil, nil }
	s.restart(t)
	if got, err := s.contentAt(s.peer, own); got != host || err != nil {
		t.Errorf("after a restart: %q, %v", got, err)
	}
	if after := s.attrOf(t, s.peer, h, "etc/hostname"); after != before {
		t.Errorf("attributes after a restart: %+v; were %+v", after, before)
	}
	if after := s.attrOf(t, s.peer, h, "etc"); after != dir {
		t.Errorf("attributes of the directory after a restart: %+v; were %+v", after, dir)
	}
	if err := s.Resolve(s.at(secondHost), own, new(Object)); err != fs.ErrAccess {
		t.Errorf("after a restart, to another node: %v; want ErrAccess", err)
	}
	s.make = files
	s.restart(t)
	if again := s.mountAs(t, s.peer); !bytes.Equal(again, h) {
		t.Errorf("mounted again: %x; was %x", again, h)
	}
}

// TestChangesApplyAtTheNextMount, and what is mounted stays as it is, attributes and all.
func TestChangesApplyAtTheNextMount(t *testing.T) {
	content := "one"
	s := serveLayers(t, func(Mounting) ([]layer.File, []error) {
		return []layer.File{{Path: "/etc/motd", Mode: 0o644, Content: content}, {Path: "/" + content, Mode: 0o644}}, nil
	}, "v1", "v2")
	s.promote(t, "v1")
	first := s.mountAs(t, s.peer)
	before := s.attrOf(t, s.peer, first, "etc/motd")
	content = "three"
	second := s.mountAs(t, s.peer)
	s.promote(t, "v2")
	third := s.mountAs(t, s.peer)
	for range 2 {
		s.expect(t, s.peer, first, "etc/motd", "one")
		s.expect(t, s.peer, second, "etc/motd", "three")
		s.expect(t, s.peer, third, "etc/motd", "three")
		s.expect(t, s.peer, second, "etc/issue", "a")
		s.expect(t, s.peer, third, "etc/issue", "b")
		if _, err := s.get(t, s.peer, first, "three"); err != fs.ErrNotExist {
			t.Errorf("a new name in what is mounted: %v", err)
		}
		if after := s.attrOf(t, s.peer, first, "etc/motd"); after != before {
			t.Errorf("attributes %+v; were %+v", after, before)
		}
		s.restart(t)
	}
	fsids := map[uint64]bool{}
	for _, h := range [][]byte{first, second, third} {
		fsids[s.attrOf(t, s.peer, h, "etc").FSID] = true
	}
	if len(fsids) != 3 {
		t.Errorf("%d identities of three trees", len(fsids))
	}
}

// TestDamagedLayer: what is a node's own is an error then, never wrong bytes, and said with the file's
// name; the version goes on being served, and the next mount mends it.
func TestDamagedLayer(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	h := s.mountAs(t, s.peer)
	own, _ := s.handle(t, s.peer, h, "etc/hostname")
	fsid := s.attrOf(t, s.peer, h, "etc").FSID
	path := s.kept(t)[0]
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.mountAs(t, s.at(secondHost))
	var others []byte
	for _, f := range s.kept(t) {
		if f != path {
			if others, err = os.ReadFile(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	for what, c := range map[string]struct {
		content []byte // nil for no file
		want    fs.Error
		said    string
	}{
		"gone":             {nil, fs.ErrStale, "no such file"},
		"empty":            {[]byte{}, fs.ErrIO, "cut short"},
		"cut":              {good[:len(good)-5], fs.ErrIO, "not what was written"},
		"another version":  {flip(20), fs.ErrIO, "not what was written"},
		"another byte":     {flip(len(good) - 40), fs.ErrIO, "not what was written"},
		"another checksum": {flip(len(good) - 1), fs.ErrIO, "not what was written"},
		"another node's":   {others, fs.ErrIO, "that of another"},
		"a newer format":   {flip(len(layerMagic) - 1), fs.ErrIO, "format"},
		"something else":   {bytes.Repeat([]byte("x"), 9999), fs.ErrIO, "no layer"},
		"too long":         {append(bytes.Clone(good), make([]byte, mostLayerFile)...), fs.ErrIO, "more than"},
	} {
		t.Run(what, func(t *testing.T) {
			os.Remove(path)
			if c.content != nil {
				if err := os.WriteFile(path, c.content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s.restart(t)
			for range 3 {
				if _, err := s.contentAt(s.peer, own); err != c.want {
					t.Errorf("an own file: %v; want %v", err, c.want)
				}
				s.expect(t, s.peer, h, "etc/issue", "a")
			}
			if got := s.attrOf(t, s.peer, h, "etc").FSID; got != fsid {
				t.Errorf("the identity is %x; was %x", got, fsid)
			}
			if s.said(path) != 1 || s.said(c.said) != 1 {
				t.Errorf("log: %v; want one line with %s and %q", s.logs.All(), path, c.said)
			}
			// Somebody restores it.
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
			s.nodes.now.Add(retryLost)
			if got, err := s.contentAt(s.peer, own); got != host || err != nil {
				t.Errorf("restored: %q, %v", got, err)
			}
			// Or the node boots again.
			if err := os.WriteFile(path, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			if again := s.mountAs(t, s.peer); !bytes.Equal(again, h) {
				t.Errorf("mounted again: %x; was %x", again, h)
			}
			s.restart(t)
			if got, err := s.contentAt(s.peer, own); got != host || err != nil {
				t.Errorf("mended by a mount: %q, %v", got, err)
			}
		})
	}
}

// TestNameComesLater: a node that was mounted under its address goes on undisturbed when it is named. What
// was made for a name is not for whoever has its address later.
func TestNameComesLater(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	first := s.mountAs(t, s.peer)
	s.name(t, map[string]string{host: "pi-01"})
	s.expect(t, s.peer, first, "etc/hostname", host)
	second := s.mountAs(t, s.peer)
	s.expect(t, s.peer, second, "etc/hostname", "pi-01")
	s.expect(t, s.peer, first, "etc/hostname", host)
	own, _ := s.handle(t, s.peer, second, "etc/hostname")

	s.name(t, map[string]string{host: "pi-02", secondHost: "pi-01"}) // DHCP has given it to another
	if _, err := s.contentAt(s.peer, own); err != fs.ErrAccess {
		t.Errorf("the node that has the address now: %v; want ErrAccess", err)
	}
	if got, err := s.contentAt(s.at(secondHost), own); got != "pi-01" || err != nil {
		t.Errorf("the node at its new address: %q, %v", got, err)
	}
	s.expect(t, s.peer, s.mountAs(t, s.peer), "etc/hostname", "pi-02")
	s.name(t, nil)
	if _, err := s.contentAt(s.at(secondHost), own); err != fs.ErrAccess {
		t.Errorf("with no names any more: %v; want ErrAccess", err)
	}
}

// TestNameIsTakenAway: a node that runs goes on with what it has when it has no name any more, and
// nobody else gets it by that.
func TestNameIsTakenAway(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.name(t, map[string]string{host: "pi-01"})
	root := s.mountAs(t, s.peer)
	own, _ := s.handle(t, s.peer, root, "etc/hostname")
	s.name(t, nil)
	s.expect(t, s.peer, root, "etc/hostname", "pi-01")
	thief := s.at(secondHost)
	s.mountAs(t, thief)
	if _, err := s.contentAt(thief, own); err != fs.ErrAccess {
		t.Errorf("another node: %v; want ErrAccess", err)
	}
	s.name(t, map[string]string{secondHost: "pi-01"}) // the name is another's now
	if _, err := s.contentAt(s.peer, own); err != fs.ErrAccess {
		t.Errorf("when the name is another's: %v; want ErrAccess", err)
	}
}

func TestMACOfAnother(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	const head = "IP address       HW type     Flags       HW address            Mask     Device\n"
	line := func(addr, flags, mac string) string {
		return fmt.Sprintf("%-16s 0x1         %-11s %s     *        eth0\n", addr, flags, mac)
	}
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Set(Entry{Name: "pi-01", Addresses: []netip.Addr{netip.MustParseAddr(host)}, MAC: "DC:A6:32:01:36:C2"})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		arp  string
		kind byte
	}{
		"the node":          {head + line(host, "0x2", "dc:a6:32:01:36:c2"), kindLayer},
		"the node, static":  {head + line(host, "0x6", "DC:A6:32:01:36:C2"), kindLayer},
		"another":           {head + line(host, "0x2", "dc:a6:32:01:36:c3"), kindVersion},
		"both":              {head + line(host, "0x2", "dc:a6:32:01:36:c3") + line(host, "0x2", "dc:a6:32:01:36:c2"), kindLayer},
		"another elsewhere": {head + line("10.1.2.33", "0x2", "dc:a6:32:01:36:c3"), kindLayer},
		"no answer":         {head + line(host, "0x0", "00:00:00:00:00:00"), kindLayer},
		"nothing":           {head, kindLayer},
		"garbage":           {"\x00\x01 " + host + "\n" + host + "\n" + strings.Repeat("x", 100_000), kindLayer},
	} {
		if err := os.WriteFile(s.neighbours, []byte(c.arp), 0o644); err != nil {
			t.Fatal(err)
		}
		warned := s.said("another machine")
		if h := s.mountAs(t, s.at(host)); h[1] != c.kind || (s.said("another machine") > warned) != (c.kind == kindVersion) {
			t.Errorf("%s: handle %x, log %v", what, h, s.logs.All())
		}
	}
}

// TestNothingKeepsANodeFromBooting: it gets the version as it is, and it is said.
func TestNothingKeepsANodeFromBooting(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	if err := os.WriteFile(filepath.Join(s.stateDir, layerDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := s.mountAs(t, s.peer)
	s.expect(t, s.peer, h, "etc/issue", "a")
	if h[1] != kindVersion || s.said("not a directory") != 1 {
		t.Errorf("handle %x, log %v", h, s.logs.All())
	}
	s = serveLayers(t, func(Mounting) ([]layer.File, []error) {
		return []layer.File{
			{Path: "/etc", Content: "shadows a directory"}, {Path: "/link/x", Content: "through a symlink"}, {Path: "/etc/good", Content: "good"},
		}, nil
	}, "v1")
	h = s.mountAs(t, s.peer)
	s.expect(t, s.peer, h, "etc/good", "good")
	if s.said("is a directory") != 1 || s.said("put it into /etc/x") != 1 {
		t.Errorf("log %v", s.logs.All())
	}
	s = serveLayers(t, func(Mounting) ([]layer.File, []error) {
		return []layer.File{{Path: "/large", Content: strings.Repeat("x", layer.MaxBytes+1)}}, nil
	}, "v1")
	if h := s.mountAs(t, s.peer); h[1] != kindVersion || s.said("more than 1048576 bytes") != 1 || len(s.kept(t)) > 0 {
		t.Errorf("beyond the bounds: handle %x, log %v", h, s.logs.All())
	}
}

func TestResolveOfLayersAllocatesNothing(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.name(t, map[string]string{host: "pi-01"})
	h := s.mountAs(t, s.peer)
	own, _ := s.handle(t, s.peer, h, "etc/hostname")
	buf := make([]byte, 0, MaxHandle)
	for _, c := range []struct {
		peer   *Peer
		handle []byte
		want   error
	}{{s.peer, h, nil}, {s.peer, own, nil}, {s.at(secondHost), h, nil}, {s.at(secondHost), own, fs.ErrAccess}} {
		var o Object
		allocs := testing.AllocsPerRun(1000, func() {
			if err := s.Resolve(c.peer, c.handle, &o); err != c.want {
				t.Fatal(err)
			}
			if c.want == nil {
				buf = o.AppendHandle(buf[:0], 2)
			}
		})
		if allocs != 0 {
			t.Errorf("%v allocations a call; want none", allocs)
		}
	}
}

func BenchmarkResolveLayer(b *testing.B) {
	s := serveLayers(b, hostnames, "v1")
	s.name(b, map[string]string{host: "pi-01"})
	h := s.mountAs(b, s.peer)
	var o Object
	for b.Loop() {
		s.Resolve(s.peer, h, &o)
	}
}

// TestUnnamedNodesFillNoDisk: who takes one address after the other gets no more files at some point, and a node
// that has a name, or has files already, does.
func TestUnnamedNodesFillNoDisk(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	s.name(t, map[string]string{secondHost: "pi-02"})
	h := s.mountAs(t, s.peer)
	if size := s.table.Load().images[0].layerBytes.Load(); size != 4096 {
		t.Errorf("one layer takes %d bytes", size)
	}
	s.table.Load().images[0].layerBytes.Store(mostUnnamed + 1)
	if again := s.mountAs(t, s.peer); !bytes.Equal(again, h) {
		t.Errorf("a node that had files: %x; was %x", again, h)
	}
	if h := s.mountAs(t, s.at(thirdHost)); h[1] != kindVersion || s.said("node set") != 1 {
		t.Errorf("a new node: %x, log %v", h, s.logs.All())
	}
	if n := s.entries(); n != 1 {
		t.Errorf("%d layers are known; want the one of the node that has files", n)
	}
	s.expect(t, s.at(secondHost), s.mountAs(t, s.at(secondHost)), "etc/hostname", "pi-02")
	s.restart(t)
	if h := s.mountAs(t, s.at(thirdHost)); h[1] != kindLayer {
		t.Errorf("when there is room: %x", h)
	}
}

// entries is how many layers the server knows, open or not.
func (s *layered) entries() int { return len(slices.Collect(s.layers.all())) }

// TestNoDiskForLayers: what cannot be kept is not kept in memory either, and the node boots.
func TestNoDiskForLayers(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	if err := os.WriteFile(filepath.Join(s.stateDir, layerDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if h := s.mountAs(t, s.peer); h[1] != kindVersion || s.said("without the files that are its own") != 1 {
		t.Errorf("handle %x, log %v", h, s.logs.All())
	}
	if n := s.entries(); n != 0 {
		t.Errorf("%d layers are known that are nowhere", n)
	}
}

// TestMountsAtOnce: however many nodes mount at once, few layers are made at once, and every node gets its own.
func TestMountsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		done := make(chan struct{})
		s := serveLayers(t, func(n Mounting) ([]layer.File, []error) {
			begun.Add(1)
			<-done
			return hostnames(n)
		}, "v1")
		var wg sync.WaitGroup
		for i := range 5 * mostMaking {
			wg.Go(func() {
				p := s.at(fmt.Sprintf("10.9.1.%d", i+1))
				h, err := s.Mount(p, "/", Caller{Booting: true})
				if err != nil {
					t.Error(err)
					return
				}
				s.expect(t, p, h, "etc/hostname", p.Addr().String())
			})
		}
		synctest.Wait()
		if n := begun.Load(); n != mostMaking {
			t.Errorf("%d layers are made at once, want %d", n, mostMaking)
		}
		close(done)
		wg.Wait()
	})
}

// TestMovedContentUnderLayers: a layer over a version whose packs were rewritten is laid over the version as it
// is now, and the old one let go of.
func TestMovedContentUnderLayers(t *testing.T) {
	s := serveLayers(t, hostnames, "v1")
	h := s.mountAs(t, s.peer)
	s.expect(t, s.peer, h, "etc/issue", "a")
	for i := range s.store.versions {
		s.store.versions[i].Layout = digestOf('x')
	}
	if err := OpenState(s.stateDir).Compacted("test"); err != nil {
		t.Fatal(err)
	}
	s.refreshIfPromoted()
	for l := range s.layers.all() {
		if l.over.Load() != nil {
			t.Error("the layer is still over what is about to be deleted")
		}
	}
	s.expect(t, s.peer, h, "etc/issue", "a")
	s.expect(t, s.peer, h, "etc/hostname", host)
}

// TestManyNodes: ten thousand nodes with files that are partly the same take no more memory than the limit,
// and those that had to be closed are opened again.
func TestManyNodes(t *testing.T) {
	const nodes = 10_000
	shared := strings.Repeat("for all ", 1000)
	s := serveLayers(t, func(n Mounting) ([]layer.File, []error) {
		files, _ := hostnames(n)
		return append(files, layer.File{Path: "/etc/shared", Content: strings.Clone(shared)}), nil
	}, "v1")
	s.layers.limit = 8 << 20
	addr := func(i int) string { return fmt.Sprintf("10.9.%d.%d", i/250, i%250+1) }
	before := heap()
	v := s.table.Load().images[0].versions[0]
	base, err := v.Tree()
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes { // what a mount does but for the disk, which would take the test a minute
		files, _ := s.make(Mounting{Address: netip.MustParseAddr(addr(i))})
		n := &ownFiles{version: v.digest, owner: addr(i), files: files}
		id := n.id()
		over, err := s.layers.overlay(n, id, base)
		if err != nil {
			t.Fatal(err)
		}
		l := s.layers.at(layerKey{treeKey{v.image.id, v.treeID}, id})
		l.used.Store(int64(i))
		s.layers.put(l, over)
		if s.layers.bytes > s.layers.limit {
			t.Fatalf("%d bytes after %d nodes", s.layers.bytes, i)
		}
	}
	if grown := heap() - before; grown > 20<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	if n := len(s.layers.texts); n > 4000 || n < 1000 {
		t.Errorf("%d texts are in memory", n)
	}
	var handles [][]byte
	s.layers.limit = 8 << 10 // of a few nodes only
	for i := range 40 {
		handles = append(handles, s.mountAs(t, s.at(addr(i))))
	}
	for range 2 {
		for i, h := range handles {
			s.expect(t, s.at(addr(i)), h, "etc/hostname", addr(i))
		}
	}
	for l := range s.layers.all() {
		s.layers.forget(l.key)
	}
	if s.layers.bytes != 0 || len(s.layers.texts) != 0 {
		t.Errorf("%d bytes and %d texts are left of nothing", s.layers.bytes, len(s.layers.texts))
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestManyAtOnce has nodes mount and read while layers are closed and versions promoted, for the
// race detector.
func TestManyAtOnce(t *testing.T) {
	s := serveLayers(t, hostnames, "v1", "v2")
	s.promote(t, "v1")
	s.layers.limit = 3 * (layerOverhead + layerFileOverhead)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			addr := fmt.Sprintf("10.9.0.%d", i+1)
			p := s.at(addr)
			for range 20 {
				h, err := s.Mount(p, "/", Caller{})
				if err != nil {
					t.Error(err)
					return
				}
				s.expect(t, p, h, "etc/hostname", addr)
			}
		})
	}
	for i := range 10 {
		s.promote(t, fmt.Sprintf("v%d", i%2+1))
		s.refreshIfPromoted()
		s.sweepLayers(time.Now())
	}
	wg.Wait()
}

// TestSweep: layers go that no node needs, and only they.
func TestSweep(t *testing.T) {
	content := 0
	s := serveLayers(t, func(n Mounting) ([]layer.File, []error) {
		return []layer.File{{Path: "/n", Content: fmt.Sprint(content)}}, nil
	}, "v1", "v2")
	s.promote(t, "v1")
	start := time.Now()
	sweep := func(after time.Duration) int {
		s.sweepLayers(start.Add(after))
		return len(s.kept(t))
	}
	idle := func(d time.Duration) { s.nodes.now.Add(int64(d / time.Second)) }
	running := s.mountAs(t, s.peer)
	s.expect(t, s.peer, running, "n", "0")
	first := s.kept(t)[0]
	for content = range 12 { // somebody looks at it, again and again
		p := s.peer
		if _, err := s.Mount(p, "/", Caller{}); err != nil {
			t.Fatal(err)
		}
		at := start.Add(-time.Duration(100-content) * time.Minute)
		for _, f := range s.kept(t) {
			if info, err := os.Stat(f); err == nil && info.ModTime().After(start.Add(-time.Minute)) {
				os.Chtimes(f, at, at)
			}
		}
	}
	if n := len(s.kept(t)); n != 12 {
		t.Fatalf("%d layers, want 12", n)
	}
	// What a crash has left.
	if err := os.WriteFile(filepath.Join(s.stateDir, layerDir, ".tmp-1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := sweep(2 * time.Hour); n != mostNodeLayers {
		t.Errorf("%d layers are left; want %d", n, mostNodeLayers)
	}
	if _, err := os.Stat(first); err != nil {
		t.Errorf("what runs was removed: %v", err)
	}

	// The node goes on for two weeks; the others go.
	for day := range 14 {
		idle(24 * time.Hour)
		s.expect(t, s.peer, running, "n", "0")
		sweep(time.Duration(day+1) * 24 * time.Hour)
	}
	if kept := s.kept(t); len(kept) != 1 || kept[0] != first {
		t.Errorf("after two weeks: %v; want %s", kept, first)
	}
	s.restart(t)
	if n := sweep(15 * 24 * time.Hour); n != 1 {
		t.Errorf("after a restart %d layers are left", n)
	}
	s.expect(t, s.peer, running, "n", "0")

	// It is off for good.
	if n := sweep(40 * 24 * time.Hour); n != 0 {
		t.Errorf("%d layers are left of a node that is gone", n)
	}
}

// TestSweepAfterRemoval: with a version its layers go.
func TestSweepAfterRemoval(t *testing.T) {
	s := serveLayers(t, hostnames, "v1", "v2")
	s.promote(t, "v1")
	s.mountAs(t, s.peer)
	s.promote(t, "v2")
	s.nodes.now.Add(60)
	h := s.mountAs(t, s.peer)
	s.store.remove("v1")
	if err := s.Refresh(); err != nil {
		t.Fatal(err)
	}
	s.nodes.now.Add(7200)
	if err := s.Resolve(s.peer, h, new(Object)); err != nil {
		t.Fatal(err)
	}
	s.sweepLayers(time.Now().Add(2 * time.Hour))
	if kept := s.kept(t); len(kept) != 1 {
		t.Errorf("kept: %v; want one", kept)
	}
	s.expect(t, s.peer, h, "etc/hostname", host)
}

// FuzzOwnFiles: whatever is taken is what encode makes.
func FuzzOwnFiles(f *testing.F) {
	files, _ := hostnames(Mounting{Name: "pi-01"})
	good := (&ownFiles{version: digestOf('a'), owner: "pi-01", files: files}).encode()
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(layerMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeOwnFiles(b); err == nil && !bytes.Equal(n.encode(), b) {
			t.Errorf("%x was taken", b)
		}
		decodeLayerHeader(b)
	})
}

// TestMountWhileVersionGoes takes a version back and removes it while a node mounts it: what the node gets is not
// what is gone.
func TestMountWhileVersionGoes(t *testing.T) {
	var s *layered
	meanwhile := func() {}
	s = serveLayers(t, func(n Mounting) ([]layer.File, []error) {
		meanwhile()
		return hostnames(n)
	}, "va", "vb")
	state := OpenState(s.stateDir)
	for _, v := range []string{"va", "vb"} {
		s.promote(t, v)
	}
	meanwhile = func() {
		meanwhile = func() {}
		if _, _, err := state.Rollback("test", all); err != nil {
			t.Fatal(err)
		}
		if err := state.Remove(ref("vb"), "test", func() error { s.store.remove("vb"); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	s.expect(t, s.peer, s.mountAs(t, s.peer), "etc/issue", "a")
}
