package exports

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

// memStore is a Store of trees in memory.
type memStore struct {
	mu       sync.Mutex
	versions []Version
	opened   map[string]int
}

func (s *memStore) Versions() ([]Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Version(nil), s.versions...), nil
}

func digestOf(content byte) fs.Digest { return fs.Digest{content, 1, 2, 3, 4, 5, 6, content} }

// seal adds a version whose file etc/issue says its name.
func (s *memStore) seal(name string, content byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == nil {
		s.opened = map[string]int{}
	}
	s.versions = append(s.versions, Version{Name: name, Digest: digestOf(content), Open: func() (fs.Tree, error) {
		s.mu.Lock()
		s.opened[name]++
		s.mu.Unlock()
		return testTree(content), nil
	}})
}

func (s *memStore) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, v := range s.versions {
		if v.Name == name {
			s.versions = append(s.versions[:i:i], s.versions[i+1:]...)
			return
		}
	}
}

func testTree(content byte) fs.Tree {
	t := fstest.NewMemTree(binary.BigEndian.Uint64(digestBytes(content)))
	t.Mkdir("/etc", 0o755)
	t.WriteFile("/etc/issue", 0o644, []byte{content})
	t.Symlink("/link", "etc")
	t.Mkdir("/v7", 0o755)
	return t
}

func digestBytes(content byte) []byte { d := digestOf(content); return d[:8] }

func sure() error { return nil }

const host = "10.1.2.3"

// served is an Exports over a memStore on a state directory of its own.
type served struct {
	*Exports
	store    *memStore
	stateDir string
	peer     *Peer
}

func serve(t *testing.T, seal ...string) *served {
	t.Helper()
	s := &served{store: &memStore{}, stateDir: t.TempDir()}
	for i, name := range seal {
		s.store.seal(name, byte('a'+i))
	}
	s.restart(t)
	return s
}

// restart makes the Exports anew from what is on disk.
func (s *served) restart(t *testing.T) {
	t.Helper()
	x, err := New(Config{
		Images: []Image{{Name: "images", Dir: "/srv/images", StateDir: s.stateDir, Versions: s.store}},
		Allow:  DefaultAllow(),
		Log:    zaptest.NewLogger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Exports = x
	s.peer = x.Peer(netip.AddrPortFrom(netip.MustParseAddr(host), 1023))
}

func (s *served) promote(t *testing.T, name string) {
	t.Helper()
	versions, _ := s.store.Versions()
	for _, v := range versions {
		if v.Name == name {
			if _, _, err := OpenState(s.stateDir).Promote(Promotion{Ref: Ref{v.Name, v.Digest}, By: "test"}, sure); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no version %s", name)
}

func (s *served) mount(t *testing.T, dir string) []byte {
	t.Helper()
	h, err := s.Mount(s.peer, dir, Caller{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// content mounts dir and says which version's etc/issue is there.
func (s *served) content(t *testing.T, dir string) (string, error) {
	t.Helper()
	h, err := s.Mount(s.peer, dir, Caller{})
	if err != nil {
		return "", err
	}
	return s.read(t, h)
}

func (s *served) read(t *testing.T, h []byte) (string, error) {
	t.Helper()
	var o Object
	if err := s.Resolve(s.peer, h, &o); err != nil {
		return "", err
	}
	id := o.ID
	if id == o.Tree.Root() {
		etc, err := o.Tree.Lookup(&fs.Cred{}, id, fs.Name("etc"))
		if err != nil {
			return "", err
		}
		id = etc
	}
	issue, err := o.Tree.Lookup(&fs.Cred{}, id, fs.Name("issue"))
	if err != nil {
		return "", err
	}
	if err := s.Resolve(s.peer, o.AppendHandle(nil, issue), &o); err != nil {
		return "", err
	}
	p := make([]byte, 8)
	n, _, err := o.Tree.Read(&fs.Cred{}, o.ID, 0, p, false)
	return string(p[:n]), err
}

func TestMountPaths(t *testing.T) {
	s := serve(t, "v1", "v2", "v7")
	s.promote(t, "v2")
	for _, c := range []struct {
		path string
		want string // content of etc/issue: a is v1, b is v2, c is v7
		err  error
	}{
		{"/", "b", nil},
		{"/images", "b", nil},
		{"/images/", "b", nil},
		{"//images/.", "b", nil},
		{"/srv/images", "b", nil},
		{"/etc", "b", nil},
		{"/images/etc", "b", nil},
		{"/srv/images/etc", "b", nil},
		{"/images@v1", "a", nil},
		{"/images@v1/etc", "a", nil},
		{"/@v1", "a", nil},
		{"/@v7/etc", "c", nil},
		{"/srv/images@v1", "a", nil},
		{"/srv/images/v1", "a", nil},
		{"/srv/images/v1/etc", "a", nil},
		{"/srv/images/v7", "c", nil}, // there is also a directory of that name in the tree
		{"/images@v9", "", fs.ErrNotExist},
		{"/@v9", "", fs.ErrNotExist},
		{"/images@", "b", nil},
		{"/other", "", fs.ErrNotExist},
		{"/other@v1", "", fs.ErrNotExist},
		{"/srv", "", fs.ErrNotExist},
		{"/srv/imagesX", "", fs.ErrNotExist},
		{"/images/etc/issue", "", fs.ErrNotDir},
		{"/images/link", "", fs.ErrNotDir},
		{"", "", fs.ErrInvalid},
		{".", "", fs.ErrInvalid},
		{"images", "", fs.ErrInvalid},
		{"/images/../etc", "", fs.ErrInvalid},
		{"//a/../images", "", fs.ErrInvalid},
		{"/images\x00", "", fs.ErrInvalid},
		{"/" + strings.Repeat("x", 256), "", fs.ErrNameTooLong},
		{strings.Repeat("/etc", 300), "", fs.ErrNameTooLong},
	} {
		got, err := s.content(t, c.path)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("mount %.40q: content %q, error %v; want %q, %v", c.path, got, err, c.want, c.err)
		}
	}
}

func TestMountRefusalsSayWhatWouldWork(t *testing.T) {
	s := serve(t, "v1", "v2")
	_, err := s.Mount(s.peer, "/images", Caller{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "rootnfsd promote") {
		t.Errorf("nothing promoted: %v; want a word about promote", err)
	}
	s.promote(t, "v1")
	if _, err = s.Mount(s.peer, "/nope", Caller{}); err == nil || !strings.Contains(err.Error(), "/images@v2") {
		t.Errorf("unknown path: %v; want the paths that there are", err)
	}
	stranger := s.Peer(netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), 700))
	if _, err = s.Mount(stranger, "/", Caller{}); !errors.Is(err, fs.ErrAccess) || !strings.Contains(err.Error(), "--allow") {
		t.Errorf("stranger: %v; want a word about --allow", err)
	}
}

func TestPromoteIsSeenAtOnceAndRunningNodesStay(t *testing.T) {
	s := serve(t, "v1", "v2")
	s.promote(t, "v1")
	before := s.mount(t, "/")
	for i := range 20 {
		name, want := "v2", "b"
		if i%2 == 1 {
			name, want = "v1", "a"
		}
		s.promote(t, name)
		if got, err := s.content(t, "/"); got != want || err != nil {
			t.Fatalf("mount after promote %s: content %q, %v; want %q", name, got, err, want)
		}
		if got, err := s.read(t, before); got != "a" || err != nil {
			t.Fatalf("handle of v1 after promote %s: content %q, %v; want \"a\"", name, got, err)
		}
	}
}

func TestOnlyVersionIsPromoted(t *testing.T) {
	s := serve(t, "v1")
	if got, err := s.content(t, "/"); got != "a" || err != nil {
		t.Fatalf("content %q, %v; want v1's", got, err)
	}
	s.store.seal("v2", 'b')
	s.restart(t)
	if got, err := s.content(t, "/"); got != "a" || err != nil {
		t.Fatalf("after v2 was sealed: content %q, %v; want v1's still", got, err)
	}
}

func TestHandlesAreAuthentic(t *testing.T) {
	s := serve(t, "v1")
	h := s.mount(t, "/etc")
	if len(h) > MaxHandle || len(h)%4 != 0 {
		t.Errorf("handle of %d bytes; want a multiple of four, at most %d", len(h), MaxHandle)
	}
	var o Object
	for bit := range len(h) * 8 {
		forged := append([]byte(nil), h...)
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
	if err := s.Resolve(s.peer, append(h[:len(h):len(h)], 0, 0, 0, 0), &o); err != fs.ErrBadHandle {
		t.Errorf("made longer: %v; want ErrBadHandle", err)
	}
	if err := s.Resolve(s.Peer(netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), 700)), h, &o); err != fs.ErrAccess {
		t.Errorf("from an address that is not allowed: %v; want ErrAccess", err)
	}
	if err := s.Resolve(s.Peer(netip.AddrPortFrom(netip.MustParseAddr("::ffff:10.1.2.3"), 700)), h, &o); err != nil {
		t.Errorf("from the address as IPv6 sockets see it: %v", err)
	}
	other := serve(t, "v1")
	if err := other.Resolve(other.peer, h, &o); err != fs.ErrBadHandle {
		t.Errorf("at a server with another key: %v; want ErrBadHandle", err)
	}
}

func TestHandlesSurvive(t *testing.T) {
	s := serve(t, "v1", "v2")
	s.promote(t, "v1")
	h := s.mount(t, "/")
	s.restart(t)
	if got, err := s.read(t, h); got != "a" || err != nil {
		t.Errorf("after a restart: %q, %v", got, err)
	}
	again, err := s.Mount(s.peer, "/", Caller{})
	if err != nil || string(again) != string(h) {
		t.Errorf("the handle after a restart is %x, %v; was %x", again, err, h)
	}

	// Sealed again with other content: the old content goes on under another name.
	s.store.remove("v1")
	s.store.seal("v1", 'z')
	s.store.seal("v1~61010203", 'a')
	if err := s.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.read(t, h); got != "a" || err != nil {
		t.Errorf("after v1 was sealed again: %q, %v", got, err)
	}
	if got, err := s.content(t, "/"); got != "a" || err != nil {
		t.Errorf("mount after v1 was sealed again, not promoted again: %q, %v; want the promoted content", got, err)
	}
	if got, err := s.content(t, "/@v1"); got != "z" || err != nil {
		t.Errorf("mount of /@v1 after v1 was sealed again: %q, %v; want the new content", got, err)
	}

	s.store.remove("v1~61010203")
	if err := s.Refresh(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.read(t, h); !errors.Is(err, fs.ErrStale) {
		t.Errorf("after the version was removed: %v; want ErrStale", err)
	}
}

// TestMovedContent: a version whose packs were rewritten is opened anew, at once
// and behind the back of who uses it; one that nobody uses is not opened; and
// where that fails the old one goes on.
func TestMovedContent(t *testing.T) {
	s := serve(t, "v1", "v2")
	s.promote(t, "v1")
	h := s.mount(t, "/@v1")
	if got, err := s.read(t, h); got != "a" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	move := func(layout byte, open func() (fs.Tree, error)) {
		t.Helper()
		for i := range s.store.versions {
			s.store.versions[i].Layout = digestOf(layout)
			if open != nil {
				s.store.versions[i].Open = open
			}
		}
		if err := OpenState(s.stateDir).Compacted("test"); err != nil {
			t.Fatal(err)
		}
		s.refreshIfPromoted()
		if got, err := s.read(t, h); got != "a" || err != nil {
			t.Errorf("layout %c: %q, %v", layout, got, err)
		}
	}
	var before, after Object
	if err := s.Resolve(s.peer, h, &before); err != nil {
		t.Fatal(err)
	}
	move('x', nil)
	if s.store.opened["v1"] != 2 || s.store.opened["v2"] != 0 {
		t.Errorf("opened %v, want v1 twice and v2 never", s.store.opened)
	}
	if err := s.Resolve(s.peer, h, &after); err != nil || before.Tree == after.Tree || before.Tree.FSID() != after.Tree.FSID() {
		t.Errorf("the tree is still %p, %v", after.Tree, err)
	}
	move('x', nil)
	if s.store.opened["v1"] != 2 {
		t.Errorf("opened %v, though nothing moved", s.store.opened)
	}
	move('y', func() (fs.Tree, error) { return nil, errors.New("cut short") })
	move('z', func() (fs.Tree, error) { return testTree('b'), nil })
}

func TestHandleOfVersionSealedSinceIsFound(t *testing.T) {
	first := serve(t, "v1")
	first.store.seal("v2", 'b')
	second := &served{store: first.store, stateDir: first.stateDir}
	second.restart(t)
	h := second.mount(t, "/@v2")
	if got, err := first.read(t, h); got != "b" || err != nil {
		t.Errorf("a handle from a second server over the same store: %q, %v; want v2's content", got, err)
	}
}

func TestVersionThatCannotBeOpened(t *testing.T) {
	s := serve(t, "v1")
	s.store.versions = append(s.store.versions, Version{Name: "v2", Digest: digestOf('b'), Open: func() (fs.Tree, error) {
		return nil, errors.New("index cut short")
	}})
	if err := s.Refresh(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(s.peer, "/@v2", Caller{}); !errors.Is(err, fs.ErrIO) || !strings.Contains(err.Error(), "v2") || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("mount of a damaged version: %v; want an I/O error that names it and says why", err)
	}
	if got, err := s.content(t, "/"); got != "a" || err != nil {
		t.Errorf("the other version: %q, %v", got, err)
	}
}

func TestVersionsAreOpenedWhenUsed(t *testing.T) {
	s := serve(t, "v1", "v2", "v3")
	s.promote(t, "v2")
	for range 3 {
		s.content(t, "/")
	}
	if s.store.opened["v2"] != 1 || len(s.store.opened) != 1 {
		t.Errorf("opened %v; want v2 once and nothing else", s.store.opened)
	}
}

func TestResolveAllocatesNothing(t *testing.T) {
	s := serve(t, "v1")
	h := s.mount(t, "/")
	var o Object
	buf := make([]byte, 0, MaxHandle)
	allocs := testing.AllocsPerRun(1000, func() {
		if err := s.Resolve(s.peer, h, &o); err != nil {
			t.Fatal(err)
		}
		buf = o.AppendHandle(buf[:0], 2)
	})
	if allocs != 0 {
		t.Errorf("%v allocations a call; want none", allocs)
	}
}

func BenchmarkResolve(b *testing.B) {
	t := &testing.T{}
	s := serve(t, "v1")
	h, _ := s.Mount(s.peer, "/", Caller{})
	var o Object
	for b.Loop() {
		s.Resolve(s.peer, h, &o)
	}
}

func TestKey(t *testing.T) {
	dir := t.TempDir()
	first, err := loadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if again, err := loadKey(dir); again != first || err != nil {
		t.Errorf("read again: %v, %v; want the same key", again, err)
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadKey(dir); err == nil || !strings.Contains(err.Error(), "restore") {
		t.Errorf("a key cut short: %v; want an error that says what to do, never a new key", err)
	}
}

// TestSipHash checks against the test vectors of the paper's appendix A and of
// the reference implementation (key 00 01 … 0f, message 00 01 02 …).
func TestSipHash(t *testing.T) {
	var key [16]byte
	msg := make([]byte, 64)
	for i := range key {
		key[i] = byte(i)
	}
	for i := range msg {
		msg[i] = byte(i)
	}
	k := newSipKey(&key)
	for n, want := range map[int]uint64{
		0:  0x726fdb47dd0e0e31,
		1:  0x74f839c593dc67fd,
		7:  0xab0200f58b01d137,
		8:  0x93f5f5799a932462,
		15: 0xa129ca6149be45e5,
	} {
		if got := k.sum(msg[:n]); got != want {
			t.Errorf("%d bytes: %016x; want %016x", n, got, want)
		}
	}
}

func FuzzResolve(f *testing.F) {
	s := serve(&testing.T{}, "v1")
	h, err := s.Mount(s.peer, "/", Caller{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h)
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o Object
		if err := s.Resolve(s.peer, b, &o); err == nil && string(b) != string(h) {
			t.Errorf("handle %x was accepted; this server did not make it", b)
		}
	})
}

// TestSealedAgainWithoutPromote seals other content under the name of the
// promoted version, which the server does not hear of. What it then opens for
// the first time must be what is promoted, or nothing.
func TestSealedAgainWithoutPromote(t *testing.T) {
	s := serve(t, "v1")
	s.store.remove("v1")
	s.store.seal("v1", 'z')
	versions := s.table.Load().images[0].versions
	versions[0].open = func() (fs.Tree, error) { return testTree('z'), nil } // by name, as a careless store would
	if got, err := s.content(t, "/"); err == nil {
		t.Errorf("content %q is served under the digest of other content", got)
	}
}

func TestVersionThatBecomesUnreadable(t *testing.T) {
	s := serve(t, "v1", "v2")
	s.promote(t, "v1")
	h := s.mount(t, "/")
	s.read(t, h)
	s.store.versions[0] = Version{Name: "v1", Err: errors.New("header is damaged")}
	s.promote(t, "v2")
	if got, err := s.content(t, "/"); got != "b" || err != nil {
		t.Fatalf("mount after promote v2: %q, %v", got, err)
	}
	if got, err := s.read(t, h); got != "a" || err != nil {
		t.Errorf("a node that has v1 open: %q, %v; want it to go on", got, err)
	}
	s.restart(t)
	if _, err := s.read(t, h); !errors.Is(err, fs.ErrIO) {
		t.Errorf("after a restart: %v; want an I/O error, which ends when the version is restored, not ErrStale", err)
	}
}

func TestVersionSealedWhileServing(t *testing.T) {
	s := serve(t, "v1")
	s.store.seal("v3", 'c')
	for _, path := range []string{"/srv/images/v3", "/@v3", "/images@v3"} {
		if got, err := s.content(t, path); got != "c" || err != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		s.restart(t)
		s.store.remove("v3")
		if err := s.Refresh(); err != nil {
			t.Fatal(err)
		}
		s.store.seal("v3", 'c')
	}
}

func TestTableIsSwappedUnderLoad(t *testing.T) {
	s := serve(t, "v1", "v2")
	s.promote(t, "v1")
	h := s.mount(t, "/")
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			p := s.Peer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 700))
			var o Object
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.Resolve(p, h, &o); err != nil {
					t.Errorf("handle of v1 under promotes: %v", err)
					return
				}
			}
		})
	}
	for i := range 50 {
		s.promote(t, []string{"v2", "v1"}[i%2])
		s.refreshIfPromoted()
		s.nodes.tick()
		s.nodes.save(s.table.Load().images, s.log, true)
	}
	close(stop)
	readers.Wait()
}
