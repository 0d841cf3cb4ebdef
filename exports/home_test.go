package exports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/hostdir"
)

// servedHomes is an Exports with homes in a directory of the host.
type servedHomes struct {
	*served
	Homes
}

func serveHomes(t *testing.T, change func(*Homes)) *servedHomes {
	t.Helper()
	host, err := hostdir.NewHost(hostdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	dir := t.TempDir()
	s := &servedHomes{
		served: serve(t, "v1"),
		Homes: Homes{
			Dir:     filepath.Join(dir, "home"),
			Skel:    filepath.Join(dir, "skel"),
			AnonUID: fs.Nobody,
			AnonGID: fs.Nobody,
			Open:    func(dir string) (fs.WritableTree, error) { return host.Open(dir) },
		},
	}
	for _, d := range []string{s.Dir, s.Skel} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(&s.Homes)
	}
	s.restart(t)
	return s
}

// restart makes the Exports anew from what is on disk.
func (s *servedHomes) restart(t *testing.T) {
	t.Helper()
	x, err := New(s.config(t))
	if err != nil {
		t.Fatal(err)
	}
	s.Exports = x
	s.peer = s.at(host)
}

func (s *servedHomes) config(t *testing.T) Config {
	return Config{
		Images: []Image{{Name: "images", Dir: "/srv/images", StateDir: s.stateDir, Versions: s.store}},
		Allow:  DefaultAllow(),
		Homes:  &s.Homes,
		Log:    zaptest.NewLogger(t),
	}
}

func (s *servedHomes) at(addr string) *Peer {
	return s.Peer(netip.AddrPortFrom(netip.MustParseAddr(addr), 1023))
}

func (s *servedHomes) mountAs(t *testing.T, p *Peer, path string) []byte {
	t.Helper()
	h, err := s.Mount(p, path, Caller{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (s *servedHomes) resolve(p *Peer, handle []byte) error {
	var o HomeObject
	return s.ResolveHome(p, handle, &o)
}

const otherHost = "10.1.2.4"

func TestHomePaths(t *testing.T) {
	s := serveHomes(t, nil)
	home := s.mountAs(t, s.peer, "/home")
	dir := filepath.Join(s.Dir, host)
	for _, d := range []string{"sub/dir", "10.0.0.1"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	sub := s.mountAs(t, s.peer, "/home/sub/dir")
	for path, want := range map[string][]byte{
		"/home/":                         home,
		"//home/.":                       home,
		"/home/" + host:                  home,
		"/home/::ffff:" + host:           home,
		s.Dir:                            home,
		dir:                              home,
		"/home/" + host + "/sub/dir":     sub,
		filepath.Join(s.Dir, "sub/dir"):  sub,
		filepath.Join(dir, "sub", "dir"): sub,
	} {
		if got := s.mountAs(t, s.peer, path); !slices.Equal(got, want) {
			t.Errorf("%s is %x; want %x", path, got, want)
		}
	}
	for path, want := range map[string]fs.Error{
		"/home/" + otherHost:                 fs.ErrAccess,
		"/home/" + otherHost + "/x":          fs.ErrAccess,
		"/home/10.0.0.1":                     fs.ErrAccess, // a node's name, whatever the home has
		"/home/::1":                          fs.ErrAccess,
		filepath.Join(s.Dir, "::1"):          fs.ErrAccess,
		"/home/nowhere":                      fs.ErrNotExist,
		"/home/file":                         fs.ErrNotDir,
		"/home/file/x":                       fs.ErrNotDir,
		"/home/link":                         fs.ErrNotDir,
		"/home/link/dir":                     fs.ErrNotDir,
		"/home/../" + otherHost:              fs.ErrInvalid,
		s.Dir + "@v1":                        fs.ErrNotExist,
		"/images/home":                       fs.ErrNotExist,
		"/home/" + strings.Repeat("n/", 512): fs.ErrNameTooLong,
	} {
		if _, err := s.Mount(s.peer, path, Caller{}); fs.KindOf(err) != want {
			t.Errorf("%s: %v; want %v", path, err, want)
		}
	}
	if _, err := s.Mount(s.at("8.8.8.8"), "/home", Caller{}); fs.KindOf(err) != fs.ErrAccess {
		t.Errorf("from an address that is not allowed: %v", err)
	}
	if entries, _ := os.ReadDir(s.Dir); len(entries) != 1 {
		t.Errorf("there are homes of nodes that have none: %v", entries)
	}
	if !slices.ContainsFunc(s.List(), func(l Listing) bool { return l.Path == "/home" }) {
		t.Error("/home is not listed")
	}
}

// TestHomeHandles: the handle of a home is good for its node and nobody else.
func TestHomeHandles(t *testing.T) {
	s := serveHomes(t, nil)
	other := s.at(otherHost)
	mine, theirs := s.mountAs(t, s.peer, "/home"), s.mountAs(t, other, "/home")
	if len(mine) > MaxHandle || len(mine)%4 != 0 || slices.Equal(mine, theirs) {
		t.Fatalf("handles %x and %x", mine, theirs)
	}
	check := func(when string, p *Peer, handle []byte, want error) {
		t.Helper()
		if err := s.resolve(p, handle); fs.KindOf(err) != fs.KindOf(want) {
			t.Errorf("%s: %v; want %v", when, err, want)
		}
		if IsHome(handle) && fs.KindOf(want) != fs.ErrStale {
			if err := s.CheckHome(p, handle); fs.KindOf(err) != fs.KindOf(want) {
				t.Errorf("%s, looking only: %v; want %v", when, err, want)
			}
		}
	}
	check("mine", s.peer, mine, nil)
	check("theirs, from me", s.peer, theirs, fs.ErrAccess)
	check("mine, from them", other, mine, fs.ErrAccess)
	check("mine, from an address that is not allowed", s.at("8.8.8.8"), mine, fs.ErrAccess)
	check("mine, by another connection", s.at(host), mine, nil)
	check("mine, by a mapped address", s.at("::ffff:"+host), mine, nil)
	for i := range mine {
		for bit := range 8 {
			forged := slices.Clone(mine)
			forged[i] ^= 1 << bit
			check(fmt.Sprintf("bit %d of byte %d flipped", bit, i), s.peer, forged, fs.ErrBadHandle)
		}
		check("cut", s.peer, mine[:i], fs.ErrBadHandle)
	}
	spliced := append(slices.Clone(theirs[:objectOffset]), mine[objectOffset:]...)
	check("with another home's object", s.peer, spliced, fs.ErrBadHandle)
	check("longer", s.peer, append(slices.Clone(mine), 0, 0, 0, 0), fs.ErrBadHandle)
	check("of a version", s.peer, s.mountAs(t, s.peer, "/"), fs.ErrBadHandle)
	var o Object
	if err := s.Resolve(s.peer, mine, &o); fs.KindOf(err) != fs.ErrBadHandle {
		t.Errorf("taken for that of a version: %v", err)
	}

	s.restart(t)
	check("after a restart", s.peer, mine, nil)
	if again := s.mountAs(t, s.peer, "/home"); !slices.Equal(again, mine) {
		t.Errorf("after a restart %x; want %x", again, mine)
	}
	s.Homes.Shared, s.Homes.Skel = true, ""
	s.restart(t)
	check("when all share one home", s.peer, mine, fs.ErrStale)
}

// TestHomeHandlesOutside: even with a tag that is good, the handle of a directory that
// is not in the home leads nowhere, nor does ".." lead out of it.
func TestHomeHandlesOutside(t *testing.T) {
	s := serveHomes(t, nil)
	for _, dir := range []string{s.Skel + "/skeldir", s.Dir + "/" + otherHost + "/secret"} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	handle := s.mountAs(t, s.peer, "/home")
	var mine HomeObject
	if err := s.ResolveHome(s.peer, handle, &mine); err != nil {
		t.Fatal(err)
	}
	var a fs.Attr
	for range 2 {
		up, err := mine.Tree.Lookup(&fs.Cred{}, mine.Handle, fs.Name(".."), &a)
		if err != nil || up != mine.Handle {
			t.Errorf(".. of the home is %x, %v", up, err)
		}
	}
	for _, dir := range []string{filepath.Dir(s.Dir), s.Dir, s.Skel, s.Skel + "/skeldir", s.Dir + "/" + otherHost, s.Dir + "/" + otherHost + "/secret"} {
		outside, err := s.Homes.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		var o HomeObject
		if err := s.ResolveHome(s.peer, mine.AppendHandle(nil, outside.Root()), &o); err != nil {
			t.Fatal(err)
		}
		list := make([]fs.HostEntry, 4)
		_, _, listed := o.Tree.ReadDir(&fs.Cred{}, o.Handle, 0, true, list)
		_, looked := o.Tree.Lookup(&fs.Cred{}, o.Handle, fs.Name("secret"), &a)
		_, _, made := o.Tree.Mkdir(&fs.Cred{}, o.Handle, fs.Name("made"), nil, &a)
		_, _, moved := o.Tree.Rename(&fs.Cred{}, o.Handle, fs.Name("secret"), mine.Handle, fs.Name("moved"))
		for what, err := range map[string]error{"attributes": o.Tree.Getattr(o.Handle, &a), "a listing": listed, "a name": looked, "a new directory": made, "a rename": moved} {
			if kind := fs.KindOf(err); kind != fs.ErrStale && kind != fs.ErrWouldBlock {
				t.Errorf("%s: %s: %v", dir, what, err)
			}
		}
	}
}

func TestHomeIsGone(t *testing.T) {
	s := serveHomes(t, nil)
	h := s.mountAs(t, s.peer, "/home")
	dir := filepath.Join(s.Dir, host)
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	if err := s.resolve(s.peer, h); fs.KindOf(err) != fs.ErrStale {
		t.Errorf("a home that was removed: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a handle has made a home")
	}
	fresh := s.mountAs(t, s.peer, "/home")
	if slices.Equal(fresh, h) {
		t.Error("another home has the handle of the first")
	}
	if err := s.resolve(s.peer, fresh); err != nil {
		t.Errorf("the home that was made anew: %v", err)
	}
	if err := s.resolve(s.peer, h); fs.KindOf(err) != fs.ErrStale {
		t.Errorf("the first home's handle, when there is another: %v", err)
	}

	// The operator puts the first one back under a server that runs.
	if err := errors.Join(os.Rename(dir, dir+".new"), os.Rename(dir+".old", dir)); err != nil {
		t.Fatal(err)
	}
	if again := s.mountAs(t, s.peer, "/home"); !slices.Equal(again, h) {
		t.Errorf("put back: %x; want %x", again, h)
	}

	s.restart(t)
	if err := os.Rename(s.Dir, s.Dir+".unmounted"); err != nil {
		t.Fatal(err)
	}
	if err := s.resolve(s.peer, h); fs.KindOf(err) != fs.ErrIO {
		t.Errorf("when the disk with the homes is not there: %v", err)
	}
	if _, err := s.Mount(s.peer, "/home", Caller{}); fs.KindOf(err) != fs.ErrIO {
		t.Errorf("mounted when the disk with the homes is not there: %v", err)
	}
}

// TestHomeIsMoved renames a home to that of another node, under a server that runs:
// from then on it is that node's alone.
func TestHomeIsMoved(t *testing.T) {
	s := serveHomes(t, nil)
	h := s.mountAs(t, s.peer, "/home")
	dir := filepath.Join(s.Dir, host)
	if err := os.Rename(dir, filepath.Join(s.Dir, otherHost)); err != nil {
		t.Fatal(err)
	}
	other := s.at(otherHost)
	theirs := s.mountAs(t, other, "/home")
	if err := s.resolve(other, theirs); err != nil {
		t.Errorf("by who has it now: %v", err)
	}
	if err := s.resolve(s.peer, h); fs.KindOf(err) != fs.ErrStale {
		t.Errorf("by who had it: %v", err)
	}
	// Two nodes that share a home on purpose do not take it from each other.
	if err := os.Symlink(otherHost, dir); err != nil {
		t.Fatal(err)
	}
	s.mountAs(t, s.peer, "/home")
	if n := len(s.homes.byDir); n != 2 {
		t.Errorf("%d homes are open", n)
	}
}

func TestSharedHome(t *testing.T) {
	s := serveHomes(t, func(h *Homes) { h.Shared, h.Skel = true, "" })
	if err := os.MkdirAll(filepath.Join(s.Dir, otherHost), 0o755); err != nil {
		t.Fatal(err)
	}
	other := s.at(otherHost)
	mine, theirs := s.mountAs(t, s.peer, "/home"), s.mountAs(t, other, "/home")
	if !slices.Equal(mine, theirs) || s.resolve(other, mine) != nil {
		t.Errorf("%x and %x: not the same home", mine, theirs)
	}
	s.mountAs(t, s.peer, "/home/"+otherHost) // a directory like others
	if err := s.resolve(s.at("8.8.8.8"), mine); fs.KindOf(err) != fs.ErrAccess {
		t.Errorf("from an address that is not allowed: %v", err)
	}
	if _, err := s.Mount(other, "/home", Caller{Datagram: true}); err != nil {
		t.Errorf("by datagram: %v", err)
	}
}

// TestHomeByDatagram: whoever sends a datagram can say that it comes from anybody.
func TestHomeByDatagram(t *testing.T) {
	s := serveHomes(t, nil)
	if _, err := s.Mount(s.peer, "/home", Caller{Datagram: true}); fs.KindOf(err) != fs.ErrNotExist {
		t.Errorf("the first mount: %v", err)
	}
	if entries, _ := os.ReadDir(s.Dir); len(entries) != 0 {
		t.Errorf("a datagram has made %v", entries)
	}
	h := s.mountAs(t, s.peer, "/home")
	again, err := s.Mount(s.peer, "/home", Caller{Datagram: true})
	if err != nil || !slices.Equal(h, again) {
		t.Errorf("when there is a home: %x, %v", again, err)
	}
}

// TestHomeDatagramLeavesNothing: nor is anything opened for datagrams, or kept.
func TestHomeDatagramLeavesNothing(t *testing.T) {
	s := serveHomes(t, nil)
	s.mountAs(t, s.peer, "/home")
	s.restart(t)
	for i := range 10 {
		p := s.at(fmt.Sprintf("10.1.9.%d", i))
		if _, err := s.Mount(p, "/home", Caller{Datagram: true}); fs.KindOf(err) != fs.ErrNotExist {
			t.Errorf("a node without a home: %v", err)
		}
	}
	if _, err := s.Mount(s.peer, "/home", Caller{Datagram: true}); fs.KindOf(err) != fs.ErrNotExist {
		t.Errorf("a home that is not open: %v", err)
	}
	if n := len(s.homes.byDir); n != 0 {
		t.Errorf("%d homes are remembered", n)
	}
}

// TestHomesAreForgotten: what is gone is not kept, nor what nobody uses.
func TestHomesAreForgotten(t *testing.T) {
	s := serveHomes(t, nil)
	h := s.mountAs(t, s.peer, "/home")
	now := time.Now().Add(homeIdle)
	s.homes.sweep(now)
	if len(s.homes.byDir) != 1 {
		t.Error("a home that was used is forgotten")
	}
	now = now.Add(homeIdle)
	s.homes.sweep(now)
	if len(s.homes.byDir) != 0 {
		t.Error("a home that is idle is kept")
	}
	var before, after HomeObject
	if err := s.ResolveHome(s.peer, h, &before); err != nil {
		t.Errorf("used again: %v", err)
	}
	s.homes.sweep(now.Add(homeIdle))
	s.homes.sweep(now.Add(2 * homeIdle))
	if err := s.ResolveHome(s.peer, h, &after); err != nil || !before.SameTree(&after) {
		t.Errorf("a home that was forgotten in between is another one, or %v", err)
	}
	s.restart(t)
	if err := os.RemoveAll(filepath.Join(s.Dir, host)); err != nil {
		t.Fatal(err)
	}
	if err := s.resolve(s.peer, h); fs.KindOf(err) != fs.ErrStale || len(s.homes.byDir) != 0 {
		t.Errorf("a home that is gone: %v, and %d are kept", err, len(s.homes.byDir))
	}
}

// TestHomeShortage: there are no descriptors to open a home with.
func TestHomeShortage(t *testing.T) {
	s := serveHomes(t, nil)
	h := s.mountAs(t, s.peer, "/home")
	s.Homes.Open = func(string) (fs.WritableTree, error) { return nil, fmt.Errorf("open: %w", unix.EMFILE) }
	s.restart(t)
	if err := s.resolve(s.peer, h); fs.KindOf(err) != fs.ErrWouldBlock {
		t.Errorf("%v; want the client to ask later", err)
	}
}

// TestLinkLocal: nodes on two links can have one address.
func TestLinkLocal(t *testing.T) {
	s := serveHomes(t, nil)
	p := s.at("fe80::1%eth0")
	if _, err := s.Mount(p, "/home", Caller{}); fs.KindOf(err) != fs.ErrAccess {
		t.Errorf("a home: %v", err)
	}
	if err := s.CheckHome(p, appendHomeHandle(nil, s.homes.at(s.homes.dirOf(p)), 1, fs.Handle{})); fs.KindOf(err) != fs.ErrAccess {
		t.Errorf("a handle: %v", err)
	}
}

func TestHomesMax(t *testing.T) {
	s := serveHomes(t, func(h *Homes) { h.Max = 2 })
	s.mountAs(t, s.peer, "/home")
	s.mountAs(t, s.at(otherHost), "/home")
	if _, err := s.Mount(s.at("10.1.9.9"), "/home", Caller{}); fs.KindOf(err) != fs.ErrNoSpace || !strings.Contains(err.Error(), "--home-max") {
		t.Errorf("a third: %v", err)
	}
	s.mountAs(t, s.peer, "/home")
	if entries, _ := os.ReadDir(s.Dir); len(entries) != 2 {
		t.Errorf("there are %d homes", len(entries))
	}
}

// TestHomesUnmounted: another directory is where the homes were.
func TestHomesUnmounted(t *testing.T) {
	s := serveHomes(t, nil)
	if err := errors.Join(os.Rename(s.Dir, s.Dir+".disk"), os.Mkdir(s.Dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(s.peer, "/home", Caller{}); fs.KindOf(err) != fs.ErrIO {
		t.Errorf("mounted: %v", err)
	}
	if entries, _ := os.ReadDir(s.Dir); len(entries) != 0 {
		t.Errorf("a home was made in the mount point: %v", entries)
	}
}

// TestHomesDisk: on a disk that is full, or cannot be written to, the homes that are
// there are served, and of others nothing is left.
func TestHomesDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a disk")
	}
	s := serveHomes(t, func(h *Homes) {
		if err := unix.Mount("tmpfs", h.Dir, "tmpfs", 0, "size=256k"); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { unix.Unmount(h.Dir, unix.MNT_DETACH) })
		if err := os.WriteFile(filepath.Join(h.Skel, "file"), make([]byte, 8<<10), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	h := s.mountAs(t, s.peer, "/home")
	check := func(when, why string, writes fs.Error) {
		t.Helper()
		if again := s.mountAs(t, s.peer, "/home"); !slices.Equal(again, h) {
			t.Errorf("%s: the home that is there is %x, was %x", when, again, h)
		}
		_, err := s.Mount(s.at(otherHost), "/home", Caller{})
		if fs.KindOf(err) != fs.ErrIO || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: a new home: %v", when, err)
		}
		if left, _ := filepath.Glob(filepath.Join(s.Dir, "*")); len(left) != 1 {
			t.Errorf("%s: there is %v", when, left)
		}
		var o HomeObject
		if err := s.ResolveHome(s.peer, h, &o); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		var a fs.Attr
		file, err := o.Tree.Lookup(&fs.Cred{}, o.Tree.Root(), fs.Name("file"), &a)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if n, _, err := o.Tree.Read(&fs.Cred{}, file, 0, make([]byte, 8<<10)); n != 8<<10 || err != nil {
			t.Errorf("%s: read %d bytes, %v", when, n, err)
		}
		_, _, err = o.Tree.Write(&fs.Cred{}, file, 0, make([]byte, 1<<20), fs.FileSync)
		if fs.KindOf(err) != writes {
			t.Errorf("%s: a large write: %v, want %v", when, err, writes)
		}
	}
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", s.Dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	check("read-only", "read-only", fs.ErrReadOnly)
	s.restart(t)
	check("read-only from the start", "read-only", fs.ErrReadOnly)
	remount(0)
	if err := os.WriteFile(filepath.Join(s.Dir, host, "ballast"), make([]byte, 1<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	check("full", "no space left", fs.ErrNoSpace)
	if err := os.Remove(filepath.Join(s.Dir, host, "ballast")); err != nil {
		t.Fatal(err)
	}
	s.mountAs(t, s.at(otherHost), "/home")
}

// TestTwoStoresOneKey: it is of no account in which order stores are named.
func TestTwoStoresOneKey(t *testing.T) {
	s := serveHomes(t, nil)
	cfg := s.config(t)
	second := Image{Name: "second", Dir: "/srv/second", StateDir: t.TempDir(), Versions: s.store}
	cfg.Images = append(cfg.Images, second)
	x, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h, err := x.Mount(x.Peer(netip.AddrPortFrom(s.peer.addr, 1023)), "/home", Caller{})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(cfg.Images)
	if x, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	var o HomeObject
	if err := x.ResolveHome(x.Peer(netip.AddrPortFrom(s.peer.addr, 1023)), h, &o); err != nil {
		t.Errorf("with the stores the other way round: %v", err)
	}
}

func TestHomesRefused(t *testing.T) {
	s := serveHomes(t, nil)
	inHome := filepath.Join(s.Dir, "images")
	if err := os.Mkdir(inHome, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(inHome, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no directory":              {func(c *Config) { c.Homes.Dir = "/nowhere/at/all" }, "/nowhere/at/all"},
		"a file":                    {func(c *Config) { c.Homes.Dir = file }, "not a directory"},
		"no skeleton":               {func(c *Config) { c.Homes.Skel = "/nowhere/at/all" }, "/nowhere/at/all"},
		"a skeleton that is a file": {func(c *Config) { c.Homes.Skel = file }, "not a directory"},
		"homes in the skeleton":     {func(c *Config) { c.Homes.Skel = filepath.Dir(s.Dir) }, "in each other"},
		"the skeleton in homes":     {func(c *Config) { c.Homes.Skel = inHome }, "in each other"},
		"a store is the skeleton":   {func(c *Config) { c.Images[0].Dir = c.Homes.Skel }, "in each other"},
		"a store in it":             {func(c *Config) { c.Images[0].Dir = inHome }, "in each other"},
		"a store in it by symlink":  {func(c *Config) { c.Images[0].Dir = link }, "in each other"},
		"in a store":                {func(c *Config) { c.Images[0].Dir = filepath.Dir(s.Dir) }, "in each other"},
		"the store":                 {func(c *Config) { c.Images[0].Dir = s.Dir }, "in each other"},
		"a store of that name":      {func(c *Config) { c.Images[0].Name = "home" }, "NAME=DIR"},
		"no store":                  {func(c *Config) { c.Images = nil }, "image"},
	} {
		cfg := s.config(t)
		homes := s.Homes
		cfg.Homes = &homes
		c.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// TestSkeleton compares a home with what it was made from.
func TestSkeleton(t *testing.T) {
	s := serveHomes(t, nil)
	fill(t, s.Skel)
	s.mountAs(t, s.peer, "/home")
	want, got := survey(t, s.Skel), survey(t, filepath.Join(s.Dir, host))
	for path, w := range want {
		if got[path] != w {
			t.Errorf("%s: %s; want %s", path, got[path], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d objects; want %d", len(got), len(want))
	}
	if left, _ := os.ReadDir(s.Dir); len(left) != 1 {
		t.Errorf("something is left: %v", left)
	}
}

// TestSkeletonIsConfined: what was a directory or a file a moment ago is a symlink to
// elsewhere by now.
func TestSkeletonIsConfined(t *testing.T) {
	dir := t.TempDir()
	secret, skel := filepath.Join(dir, "secret"), filepath.Join(dir, "skel")
	if err := errors.Join(os.Mkdir(secret, 0o755), os.Mkdir(skel, 0o755), os.WriteFile(filepath.Join(secret, "file"), []byte("secret"), 0o600),
		os.Symlink(secret, filepath.Join(skel, "dir")), os.Symlink(filepath.Join(secret, "file"), filepath.Join(skel, "file"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(skel)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	info, err := os.Lstat(filepath.Join(secret, "file"))
	if err != nil {
		t.Fatal(err)
	}
	s := &skeleton{root: root, copies: map[inode]string{}}
	for name, copied := range map[string]func(to string) error{
		"directory":           func(to string) error { return s.copyDir("dir", to) },
		"file":                func(to string) error { return s.copyFile("file", filepath.Join(to, "copy"), info) },
		"file in a directory": func(to string) error { return s.copyFile("dir/file", filepath.Join(to, "copy"), info) },
		"object":              func(to string) error { return s.copy("dir/file", filepath.Join(to, "copy")) },
	} {
		to := t.TempDir()
		if err := copied(to); err == nil {
			t.Errorf("%s: copied", name)
		}
		if entries, _ := os.ReadDir(to); len(entries) != 0 {
			t.Errorf("%s: there is %v", name, entries)
		}
	}
}

// fill makes a skeleton of one object of each kind.
func fill(t *testing.T, dir string) {
	t.Helper()
	user := filepath.Join(dir, "ubuntu")
	at := func(name string) string { return filepath.Join(user, name) }
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(user, 0o700), os.Mkdir(at("shared"), 0o755),
		os.WriteFile(at(".profile"), []byte("umask 022\n"), 0o644), os.WriteFile(at("empty"), nil, 0o400),
		os.WriteFile(at("suid"), []byte("#!"), 0o755),
		os.Link(at(".profile"), at("shared/again")), os.Symlink("/etc/passwd", at("link")), os.Symlink("nowhere", at("dangling")),
		unix.Mkfifo(at("fifo"), 0o600))
	if os.Geteuid() == 0 {
		must(os.Chown(user, 1000, 1000), os.Lchown(at("link"), 1000, 1001), os.Chown(at("suid"), 1000, 1001),
			unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	}
	must(unix.Chmod(at("suid"), 0o6755), unix.Chmod(at("shared"), 0o3770))
	old := time.Unix(1_500_000_000, 123456789)
	must(os.Chtimes(at(".profile"), old, old.Add(time.Hour)), os.Chtimes(at("shared"), old, old))
	must(os.Chtimes(user, old, old), os.Chtimes(dir, old, old))
}

// survey describes what is in a directory.
func survey(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := ""
		switch info.Mode().Type() {
		case 0:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(b)
		case os.ModeSymlink:
			text, _ = os.Readlink(path)
		}
		rel, _ := filepath.Rel(dir, path)
		found[rel] = fmt.Sprintf("%v %d:%d links %d dev %d %v %q", info.Mode(), st.Uid, st.Gid, st.Nlink, st.Rdev, info.ModTime(), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestHomeIsMadeOnce mounts from many connections of a node at once.
func TestHomeIsMadeOnce(t *testing.T) {
	s := serveHomes(t, nil)
	fill(t, s.Skel)
	var mounting sync.WaitGroup
	handles := make([][]byte, 16)
	for i := range handles {
		mounting.Go(func() { handles[i], _ = s.Mount(s.at(host), "/home", Caller{}) })
	}
	mounting.Wait()
	for _, h := range handles {
		if h == nil || !slices.Equal(h, handles[0]) {
			t.Errorf("handles %x and %x", h, handles[0])
		}
	}
}

// TestHomeHalfMade: what a crash leaves is removed at the next start, and a
// skeleton that cannot be copied leaves nothing.
func TestHomeHalfMade(t *testing.T) {
	s := serveHomes(t, nil)
	if err := os.MkdirAll(filepath.Join(s.Dir, tempHome+"1/ubuntu"), 0o700); err != nil {
		t.Fatal(err)
	}
	keep := filepath.Join(s.Dir, "10.9.9.9")
	if err := os.Mkdir(keep, 0o700); err != nil {
		t.Fatal(err)
	}
	s.restart(t)
	wantOnly := func(when string) {
		t.Helper()
		if left, _ := os.ReadDir(s.Dir); len(left) != 1 || left[0].Name() != filepath.Base(keep) {
			t.Errorf("%s there is %v", when, left)
		}
	}
	wantOnly("after a restart")
	if err := os.Remove(s.Skel); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(s.peer, "/home", Caller{}); err == nil {
		t.Error("a home is made without the skeleton")
	}
	wantOnly("without a skeleton")
}

// TestMakeHomeTaken: a home that somebody else has made meanwhile stays.
func TestMakeHomeTaken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), host)
	for _, inside := range []string{"", "file"} {
		if err := os.MkdirAll(filepath.Join(dir, inside), 0o700); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Stat(dir)
		if err := makeHome(dir, ""); err != nil {
			t.Fatal(err)
		}
		if after, err := os.Stat(dir); err != nil || !os.SameFile(before, after) {
			t.Errorf("it was replaced (%v)", err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestSquash(t *testing.T) {
	const none = 1<<32 - 1
	ask := func() fs.Cred { return fs.Cred{UID: 0, GID: 0, Groups: []uint32{0, 4, none, 1000}} }
	for _, c := range []struct {
		squash    Squash
		cred      fs.Cred
		anonymous bool
		want      fs.Cred
	}{
		{SquashRoot, ask(), false, fs.Cred{UID: 99, GID: 98, Groups: []uint32{98, 4, 98, 1000}}},
		{SquashRoot, fs.Cred{UID: 1000, GID: 1000, Groups: []uint32{4}}, false, fs.Cred{UID: 1000, GID: 1000, Groups: []uint32{4}}},
		{SquashRoot, fs.Cred{UID: 1000, GID: 0}, false, fs.Cred{UID: 1000, GID: 98}},
		{SquashRoot, fs.Cred{UID: none, GID: none}, false, fs.Cred{UID: 99, GID: 98}},
		{SquashRoot, fs.Cred{UID: fs.Nobody, GID: fs.Nobody}, true, fs.Cred{UID: 99, GID: 98}},
		{SquashNone, ask(), false, fs.Cred{UID: 0, GID: 0, Groups: []uint32{0, 4, 98, 1000}}},
		{SquashNone, fs.Cred{UID: none, GID: none}, false, fs.Cred{UID: 99, GID: 98}},
		{SquashNone, ask(), true, fs.Cred{UID: 99, GID: 98}},
		{SquashAll, ask(), false, fs.Cred{UID: 99, GID: 98}},
		{SquashAll, fs.Cred{UID: 1000, GID: 1000, Groups: []uint32{0}}, false, fs.Cred{UID: 99, GID: 98}},
	} {
		h := Homes{Squash: c.squash, AnonUID: 99, AnonGID: 98}
		got := c.cred
		h.squash(&got, c.anonymous)
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v, anonymous %v: %v; want %v", c.squash, c.anonymous, got, c.want)
		}
	}
	for word, want := range map[string]Squash{"root": SquashRoot, "none": SquashNone, "all": SquashAll} {
		if got, err := ParseSquash(word); got != want || err != nil {
			t.Errorf("%s: %v, %v", word, got, err)
		}
	}
	if _, err := ParseSquash("no_root_squash"); err == nil {
		t.Error("no_root_squash is taken for something")
	}
}

// FuzzHomeHandle takes anything apart, and puts together again what it accepts.
func FuzzHomeHandle(f *testing.F) {
	keys := &homes{keys: []sipKey{{1, 2}}}
	in := map[byte]*writable{}
	for _, kind := range []byte{kindHome, kindDraft} {
		in[kind] = &writable{of: keys, kind: kind, key: keys.keys[0], id: 7}
	}
	for _, n := range []uint8{0, 1, 9, 31, fs.MaxHandle} {
		h := fs.Handle{Len: n}
		for i := range n {
			h.Bytes[i] = i + 1
		}
		f.Add(appendHomeHandle(nil, in[kindHome], 42, h))
		f.Add(appendHomeHandle(nil, in[kindDraft], 42, h))
	}
	f.Add([]byte{handleFormat, kindHome, 255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseHomeHandle(b)
		if !ok || !keys.signed(b) {
			return
		}
		again := appendHomeHandle(nil, in[h.kind], h.fsid, h.object)
		if h.home == 7 && !slices.Equal(again, b) {
			t.Errorf("%x is put together as %x", b, again)
		}
	})
}

// TestHomePorts: any user of a node can send from a port that is not reserved.
func TestHomePorts(t *testing.T) {
	s := serveHomes(t, nil)
	handle := s.mountAs(t, s.peer, "/home")
	from := func(port uint16) *Peer { return s.Peer(netip.AddrPortFrom(s.peer.addr, port)) }
	check := func(port uint16, want error) {
		t.Helper()
		if err := s.resolve(from(port), handle); fs.KindOf(err) != fs.KindOf(want) {
			t.Errorf("a handle from port %d: %v; want %v", port, err, want)
		}
		if err := s.CheckHome(from(port), handle); fs.KindOf(err) != fs.KindOf(want) {
			t.Errorf("a handle from port %d, looking only: %v; want %v", port, err, want)
		}
		if _, err := s.Mount(from(port), "/home", Caller{}); fs.KindOf(err) != fs.KindOf(want) {
			t.Errorf("a mount from port %d: %v; want %v", port, err, want)
		}
		if _, err := s.Mount(from(port), "/", Caller{}); err != nil {
			t.Errorf("a mount of an image from port %d: %v", port, err)
		}
	}
	check(1023, nil)
	check(1024, fs.ErrAccess)
	s.AnyPort = true
	s.restart(t)
	check(1024, nil)
}
