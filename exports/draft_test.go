package exports

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/hostdir"
)

// drafted is an Exports of a store on the disk, with v1, promoted, v2, and nodes with names.
type drafted struct {
	*layered
	dir    string
	drafts *Drafts
	open   func(dir string) (fs.WritableTree, error)
}

const (
	draftHost = "10.1.2.3" // of pi-01
)

func serveDrafts(t *testing.T) *drafted {
	t.Helper()
	host, err := hostdir.NewHost(hostdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	s := &drafted{layered: &layered{served: &served{store: &memStore{}, stateDir: t.TempDir()}}, dir: t.TempDir()}
	s.open = func(dir string) (fs.WritableTree, error) { return host.Open(dir) }
	s.store.seal("v1", 'a')
	s.store.seal("v2", 'b')
	s.promote(t, "v1")
	s.drafts = OpenDrafts(OpenState(s.stateDir), s.dir)
	s.restart(t)
	s.name(t, map[string]string{draftHost: "pi-01", otherHost: "pi-02"})
	return s
}

// restart makes the Exports anew from what is on disk.
func (s *drafted) restart(t *testing.T) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	x, err := New(Config{
		Images: []Image{{Name: "images", Dir: s.dir, StateDir: s.stateDir, Versions: s.store}},
		Allow:  DefaultAllow(),
		Drafts: s.open,
		Log:    zap.New(core),
	})
	if err != nil {
		t.Fatal(err)
	}
	x.neighbours = filepath.Join(s.stateDir, "arp")
	s.Exports, s.logs = x, logs
	s.peer = s.at(draftHost)
}

// make makes the tree of a draft where that is made.
func (s *drafted) make(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "boot/kernel"), []byte("the kernel of the draft"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start makes the draft v3 of pi-01.
func (s *drafted) start(t *testing.T) {
	t.Helper()
	s.make(t, s.drafts.Making("v3"))
	if err := s.drafts.Start(NewDraft("v3", Ref{Version: "v1"}, "pi-01", "me"), sure); err != nil {
		t.Fatal(err)
	}
}

// gets returns what a mount gives: the name of a version or of a draft, or an error's kind.
func (s *drafted) gets(p *Peer, path string) (string, []byte) {
	h, err := s.Mount(p, path, Caller{Booting: true})
	if err != nil {
		return fs.KindOf(err).Error(), nil
	}
	if IsHome(h) {
		var o HomeObject
		if err := s.ResolveHome(p, h, &o); err != nil {
			return fs.KindOf(err).Error(), h
		}
		return "draft " + filepath.Base(o.in.dir), h
	}
	var o Object
	if err := s.Resolve(p, h, &o); err != nil {
		return fs.KindOf(err).Error(), h
	}
	return o.ver.name, h
}

func (s *drafted) wants(t *testing.T, p *Peer, path, want string) []byte {
	t.Helper()
	got, h := s.gets(p, path)
	if got != want {
		t.Errorf("%s at %s gives %s; want %s", path, p.addr, got, want)
	}
	return h
}

func TestDraftMounts(t *testing.T) {
	s := serveDrafts(t)
	s.start(t)
	user := s.Peer(netip.AddrPortFrom(netip.MustParseAddr(draftHost), 1024))
	access := fs.ErrAccess.Error()
	for _, c := range []struct {
		name string
		p    *Peer
		path string
		want string
	}{
		{"the root", s.peer, "/", "draft v3"},
		{"the image", s.peer, "/images", "draft v3"},
		{"the draft by its name", s.peer, "/images@v3", "draft v3"},
		{"the same of the first image", s.peer, "/@v3", "draft v3"},
		{"as on the disk", s.peer, s.dir + "/v3", "draft v3"},
		{"a directory", s.peer, "/images/boot", "draft v3"},
		{"another version", s.peer, "/images@v2", "v2"},
		{"another version as on the disk", s.peer, s.dir + "/v2", "v2"},
		{"a directory that is not there", s.peer, "/images/none", fs.ErrNotExist.Error()},
		{"a file", s.peer, "/images/boot/kernel", fs.ErrNotDir.Error()},
		{"another node", s.at(otherHost), "/images", "v1"},
		{"another node, by its name", s.at(otherHost), "/images@v3", access},
		{"another node, as on the disk", s.at(otherHost), s.dir + "/v3", access},
		{"a node without a name", s.at("10.1.2.5"), "/images@v3", access},
		{"a port that is not reserved", user, "/images", access},
	} {
		t.Run(c.name, func(t *testing.T) { s.wants(t, c.p, c.path, c.want) })
	}
	if _, err := s.Mount(s.peer, "/images", Caller{Datagram: true}); fs.KindOf(err) != fs.ErrAccess {
		t.Errorf("by a datagram: %v; want %v", err, fs.ErrAccess)
	}
	if err := OpenState(s.stateDir).Pin([]string{"pi-01"}, &Ref{"v2", mustRef(t, s, "v2").Digest}, "me", anyVersion); err != nil {
		t.Fatal(err)
	}
	s.wants(t, s.peer, "/images", "draft v3")
	if err := s.drafts.Release("v3", "me"); err != nil {
		t.Fatal(err)
	}
	s.wants(t, s.peer, "/images", "v2")
	s.wants(t, s.peer, "/images@v3", "draft v3")
	if err := s.drafts.Give("v3", "pi-02", "me"); err != nil {
		t.Fatal(err)
	}
	s.wants(t, s.at(otherHost), "/images", "draft v3")
	s.wants(t, s.peer, "/images", "v2")
	s.wants(t, s.peer, "/images@v3", access)
}

func mustRef(t *testing.T, s *drafted, name string) Ref {
	t.Helper()
	versions, _ := s.store.Versions()
	for _, v := range versions {
		if v.Name == name {
			return Ref{v.Name, v.Digest}
		}
	}
	t.Fatalf("no version %s", name)
	return Ref{}
}

func TestDraftHandles(t *testing.T) {
	s := serveDrafts(t)
	s.start(t)
	h := s.wants(t, s.peer, "/", "draft v3")
	check := func(p *Peer, handle []byte, want error) {
		t.Helper()
		var o HomeObject
		if got := s.CheckHome(p, handle); fs.KindOf(got) != fs.KindOf(want) {
			t.Errorf("CheckHome: %v; want %v", got, want)
		}
		if got := s.ResolveHome(p, handle, &o); fs.KindOf(got) != fs.KindOf(want) {
			t.Errorf("ResolveHome: %v; want %v", got, want)
		}
	}
	check(s.peer, h, nil)
	for i := range h {
		forged := bytes.Clone(h)
		forged[i] ^= 1
		if IsHome(forged) { // else it is none of ours
			check(s.peer, forged, fs.ErrBadHandle)
		}
	}
	check(s.at(otherHost), h, fs.ErrAccess)
	check(s.Peer(netip.AddrPortFrom(netip.MustParseAddr(draftHost), 1024)), h, fs.ErrAccess)
	check(s.at("8.8.8.8"), h, fs.ErrAccess)

	s.restart(t)
	check(s.peer, h, nil)
	if again := s.wants(t, s.peer, "/", "draft v3"); !bytes.Equal(again, h) {
		t.Errorf("after a restart the handle is %x; was %x", again, h)
	}
	s.name(t, map[string]string{draftHost: "pi-01", otherHost: "pi-02", "10.1.2.9": "pi-09"})
	check(s.peer, h, nil) // by another inventory

	unlock, err := s.drafts.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	broken := errors.New("broken")
	idle := func() error {
		s.refreshIfPromoted()
		check(s.peer, h, fs.ErrWouldBlock)
		s.wants(t, s.peer, "/images", "v1")
		return nil
	}
	if err := s.drafts.Seal("v3", "me", idle, func() (Ref, error) { return Ref{}, broken }); !errors.Is(err, broken) {
		t.Errorf("a seal that fails: %v", err)
	}
	s.refreshIfPromoted()
	check(s.peer, h, nil)
	if err := s.drafts.Seal("v3", "me", func() error { return broken }, nil); !errors.Is(err, broken) {
		t.Errorf("a seal of a draft that is in use: %v", err)
	}
	s.refreshIfPromoted()
	check(s.peer, h, nil)
	if err := s.drafts.Seal("v3", "me", idle, func() (Ref, error) { return mustRef(t, s, "v2"), nil }); err != nil {
		t.Fatal(err)
	}
	s.refreshIfPromoted()
	check(s.peer, h, fs.ErrStale)
	s.wants(t, s.peer, "/images", "v1")
	if err := s.drafts.Seal("v3", "me", idle, nil); !errors.Is(err, ErrNoDraft) {
		t.Errorf("a seal of what is no draft: %v", err)
	}
}

// TestDraftCrashes starts a server, or asks one, after a crash at each step.
func TestDraftCrashes(t *testing.T) {
	d := NewDraft("v3", Ref{Version: "v1"}, "pi-01", "me")
	entry := func(t *testing.T, s *drafted, d Draft) {
		t.Helper()
		err := OpenState(s.stateDir).update(func(r *Rollout) (bool, error) {
			r.Drafts = append(r.Drafts, d)
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		crash func(t *testing.T, s *drafted)
		want  string // that the node gets
		left  []string
	}{
		{"the checkout was under way", func(t *testing.T, s *drafted) { s.make(t, filepath.Join(s.dir, ".tmp-.draft-v3-17")) }, "v1", nil},
		{"it was made, and no draft yet; or no draft any more, and not deleted", func(t *testing.T, s *drafted) { s.make(t, s.drafts.Making("v3")) }, "v1", nil},
		{"it was a draft, and had no name yet, or none any more", func(t *testing.T, s *drafted) {
			s.make(t, s.drafts.Making("v3"))
			entry(t, s, d)
		}, "draft v3", []string{"v3"}},
		{"it was being sealed", func(t *testing.T, s *drafted) {
			s.make(t, s.drafts.Tree("v3"))
			sealing := d
			sealing.Sealing = true
			entry(t, s, sealing)
		}, "draft v3", []string{"v3"}},
		{"somebody has deleted the tree", func(t *testing.T, s *drafted) { entry(t, s, d) }, fs.ErrStale.Error(), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveDrafts(t)
			c.crash(t, s)
			s.restart(t)
			s.wants(t, s.peer, "/", c.want)
			names := namesIn(t, s.dir)
			if !slices.Equal(names, c.left) {
				t.Errorf("in the store are %q; want %q", names, c.left)
			}
		})
		t.Run(c.name+", while somebody is busy", func(t *testing.T) {
			s := serveDrafts(t)
			c.crash(t, s)
			before := namesIn(t, s.dir)
			unlock, err := s.drafts.take()
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
			s.restart(t)
			if now := namesIn(t, s.dir); !slices.Equal(now, before) {
				t.Errorf("in the store are %q; want %q", now, before)
			}
			if _, err := s.drafts.Lock(); !errors.Is(err, ErrDraftsBusy) {
				t.Errorf("a second lock: %v", err)
			}
		})
	}
	t.Run("a node comes before it has its name", func(t *testing.T) {
		s := serveDrafts(t)
		s.make(t, s.drafts.Making("v3"))
		entry(t, s, d)
		s.wants(t, s.peer, "/", "draft v3")
		if names := namesIn(t, s.dir); !slices.Equal(names, []string{"v3"}) {
			t.Errorf("in the store are %q", names)
		}
	})
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestDraftIsRefused(t *testing.T) {
	s := serveDrafts(t)
	s.start(t)
	s.make(t, s.drafts.Making("v4"))
	missing := errors.New("missing")
	for _, c := range []struct {
		name  string
		draft Draft
		check func() error
		want  string
	}{
		{"a node that has one", NewDraft("v4", Ref{}, "pi-01", "me"), sure, "pi-01 has the draft v3 already"},
		{"a name that is taken", NewDraft("v3", Ref{}, "pi-02", "me"), sure, "choose another name"},
		{"what the caller finds", NewDraft("v4", Ref{}, "pi-02", "me"), func() error { return missing }, "missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := s.drafts.Start(c.draft, c.check); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
	for name, err := range map[string]error{
		"Give": s.drafts.Give("v4", "pi-01", "me"), "Release": s.drafts.Release("v4", "me"), "Abandon": s.drafts.Abandon("v4", "me", func() {}),
	} {
		if !errors.Is(err, ErrNoDraft) {
			t.Errorf("%s of what is no draft: %v", name, err)
		}
	}
	if err := s.drafts.Start(NewDraft("v4", Ref{}, "pi-02", "me"), sure); err != nil {
		t.Fatal(err)
	}
	if err := s.drafts.Give("v4", "pi-01", "me"); err == nil || !strings.Contains(err.Error(), "pi-01 has the draft v3 already") {
		t.Errorf("a second draft is given to a node: %v", err)
	}
	state := OpenState(s.stateDir)
	for name, change := range map[string]func(inv *Inventory) error{
		"remove": func(inv *Inventory) error { inv.Remove([]string{"pi-01"}); return nil },
		"unset":  func(inv *Inventory) error { inv.Set(Entry{Name: "pi-01"}); return nil },
	} {
		if err := state.UpdateInventory("me", anyVersion, change); err == nil || !strings.Contains(err.Error(), "it has the draft v3") {
			t.Errorf("%s of a node with a draft: %v", name, err)
		}
	}
	rollout, err := state.Rollout()
	if err != nil || rollout.Format != draftFormat || len(rollout.Drafts) != 2 {
		t.Errorf("%+v, %v", rollout, err)
	}
	ended := false
	for _, v := range []string{"v3", "v4"} {
		if err := s.drafts.Abandon(v, "me", func() { ended = true }); err != nil {
			t.Fatal(err)
		}
	}
	if rollout, err = state.Rollout(); err != nil || rollout.Format != rolloutFormat || !ended {
		t.Errorf("%+v, %v", rollout, err)
	}
	var history []string
	for _, e := range rollout.History[1:] { // the first one is of the promote
		history = append(history, fmt.Sprint(e.Action, " ", e.Version, " ", e.Nodes))
	}
	if want := "draft v3 pi-01, draft v4 pi-02, abandon v3 pi-01, abandon v4 pi-02"; strings.Join(history, ", ") != want {
		t.Errorf("the history is %q; want %q", history, want)
	}
	if names := namesIn(t, s.dir); names != nil {
		t.Errorf("in the store are %q", names)
	}
}

// TestDraftOfAnotherMachine: who has the node's address by chance gets what all get.
func TestDraftOfAnotherMachine(t *testing.T) {
	s := serveDrafts(t)
	s.start(t)
	arp := func(mac string) {
		t.Helper()
		line := fmt.Sprintf("IP address HW type Flags HW address Mask Device\n%s 0x1 0x2 %s * eth0\n", draftHost, mac)
		if err := os.WriteFile(s.neighbours, []byte(line), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	arp("dc:a6:32:00:00:01")
	h := s.wants(t, s.peer, "/", "draft v3")
	arp("dc:a6:32:00:00:02")
	other := s.at(draftHost)
	if b, err := s.Boot(netip.MustParseAddr(draftHost), BootID{}, BootFirst); err != nil || b.Draft {
		t.Errorf("its boot files: %+v, %v", b, err)
	}
	s.wants(t, other, "/", "v1")
	var o HomeObject
	if err := s.ResolveHome(other, h, &o); !errors.Is(err, fs.ErrAccess) {
		t.Errorf("by a handle of the node's: %v; want %v", err, fs.ErrAccess)
	}
	if err := s.ResolveHome(s.peer, h, &o); err != nil {
		t.Errorf("over a connection from before: %v", err)
	}
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Named("pi-01").MAC = "dc:a6:32:00:00:02"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.wants(t, other, "/", "draft v3")
}

func TestDraftCannotBeServed(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(string) (fs.WritableTree, error)
		want string
	}{
		{"no drafts", nil, "serves no drafts"},
		{"no rights", func(string) (fs.WritableTree, error) { return nil, fmt.Errorf("%w: run as root", fs.ErrAccess) }, "run as root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serveDrafts(t)
			s.start(t)
			s.open = c.open
			s.restart(t)
			_, err := s.Mount(s.peer, "/", Caller{})
			if fs.KindOf(err) != fs.ErrAccess || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			s.wants(t, s.at(otherHost), "/", "v1")
		})
	}
}

// boots returns which version a node at an address gets boot files of, or an error.
func (s *drafted) boots(t *testing.T, addr string, id BootID, step BootStep) *Boot {
	t.Helper()
	b, err := s.Boot(netip.MustParseAddr(addr), id, step)
	if err != nil {
		t.Fatal(err)
	}
	b.Confirmed()
	b.Done()
	return b
}

func TestBootOfDraft(t *testing.T) {
	s := serveDrafts(t)
	err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error {
		inv.Named("pi-01").Serial = "0660cd37"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.start(t)
	pi := BootID{Serial: "0660cd37"}
	if b := s.boots(t, "10.1.2.99", pi, BootFirst); b.Draft || b.Version != "v1" {
		t.Errorf("from an address that is not the node's: %+v", b)
	}
	b := s.boots(t, draftHost, pi, BootFirst)
	if !b.Draft || b.Version != "v3" || b.Node == nil || b.Node.Name != "pi-01" {
		t.Errorf("%+v; want the draft", b)
	}
	if got := read(t, b.Tree, "boot/kernel"); got != "the kernel of the draft" {
		t.Errorf("the kernel is %q", got)
	}
	b.CommandLineGiven()

	// From the first file to the root it is one tree, whatever is said meanwhile.
	if err := s.drafts.Release("v3", "me"); err != nil {
		t.Fatal(err)
	}
	if b := s.boots(t, draftHost, pi, BootLast); !b.Draft {
		t.Errorf("it gets the rest of %+v", b)
	}
	s.wants(t, s.peer, "/images@v3", "draft v3")
	n := OpenState(s.stateDir)
	r, err := n.Rollout()
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range Fleet(&r, s.table.Load().images[0].inventory, recordOf("images", true, s.nodes.all()), time.Now()) {
		if want := map[string]string{"pi-01": "v3"}[status.Name]; status.OnDraft != want || status.Why == ByCommandLine {
			t.Errorf("%+v; want it on %q", status, want)
		}
	}
	if b := s.boots(t, draftHost, pi, BootFirst); b.Draft || b.Version != "v1" {
		t.Errorf("at the next boot it gets %+v", b)
	}
	if err := s.drafts.Give("v3", "pi-01", "me"); err != nil {
		t.Fatal(err)
	}
	if b := s.boots(t, draftHost, pi, BootLast); b.Draft {
		t.Errorf("in the middle of a boot it gets %+v", b)
	}
	s.wants(t, s.peer, "/images", "v1")
}

// read reads a file of a tree.
func read(t *testing.T, tree fs.Tree, path string) string {
	t.Helper()
	id, err := tree.Root(), error(nil)
	for name := range strings.SplitSeq(path, "/") {
		if id, err = tree.Lookup(&fs.Cred{}, id, fs.Name(name)); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	p := make([]byte, 4096)
	n, eof, err := tree.Read(&fs.Cred{}, id, 0, p, false)
	if err != nil || !eof {
		t.Fatalf("%s: %t, %v", path, eof, err)
	}
	return string(p[:n])
}

// TestReading compares what is read of a directory with the directory.
func TestReading(t *testing.T) {
	host, err := hostdir.NewHost(hostdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	dir := t.TempDir()
	want := map[string]fs.Kind{".": fs.Directory, "..": fs.Directory, "link": fs.Symlink, "sub": fs.Directory}
	for i := range 100 {
		name := fmt.Sprintf("file-%03d", i)
		want[name] = fs.Regular
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("file-000", filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "sub"), 0o755)); err != nil {
		t.Fatal(err)
	}
	under, err := host.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	tree := NewReading(under)
	root := &fs.Cred{}
	got := map[string]fs.Kind{}
	entries := make([]fs.DirEntry, 7)
	for cookie, eof := uint64(0), false; !eof; {
		n, end, err := tree.ReadDir(root, tree.Root(), cookie, entries)
		if err != nil || n == 0 && !end {
			t.Fatalf("%d entries, %v", n, err)
		}
		for _, e := range entries[:n] {
			cookie = e.Cookie
			got[string(e.Name)] = e.Kind
			if found, err := tree.Lookup(root, tree.Root(), fs.Name(e.Name)); string(e.Name) != ".." && (found != e.ID || err != nil) {
				t.Errorf("%s is %d, %v; listed as %d", e.Name, found, err, e.ID)
			}
		}
		eof = end
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("listed are %v; want %v", got, want)
	}
	for _, nowait := range []bool{false, true} {
		id, err := tree.Lookup(root, tree.Root(), fs.Name("file-042"))
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 5)
		if n, eof, err := tree.Read(root, id, 5, p, nowait); err != nil || string(p[:n]) != "042" || !eof {
			t.Errorf("read %q, %t, %v", p[:n], eof, err)
		}
		var a fs.Attr
		if err := tree.Getattr(id, &a); err != nil || a.Size != 8 {
			t.Errorf("%+v, %v", a, err)
		}
	}
	link, err := tree.Lookup(root, tree.Root(), fs.Name("link"))
	if text, e := tree.Readlink(link); string(text) != "file-000" || err != nil || e != nil {
		t.Errorf("the link is %q, %v, %v", text, err, e)
	}
	if tree.FSID() != under.FSID() || tree.Statfs().Bytes == 0 {
		t.Error("it is another file system")
	}
	none := fs.NodeID(1 << 40)
	var a fs.Attr
	_, lookup := tree.Lookup(root, none, fs.Name("x"))
	_, readlink := tree.Readlink(none)
	_, _, readdir := tree.ReadDir(root, none, 0, entries)
	_, _, readfile := tree.Read(root, none, 0, nil, false)
	for _, err := range []error{lookup, readlink, readdir, readfile, tree.Getattr(none, &a), tree.Getattr(0, &a)} {
		if !errors.Is(err, fs.ErrStale) {
			t.Errorf("of no object: %v; want %v", err, fs.ErrStale)
		}
	}
}

// TestOnDraft: a node is on a draft until it boots something else.
func TestOnDraft(t *testing.T) {
	d := NewDraft("v3", Ref{}, "pi-01", "me")
	v1 := Ref{"v1", fs.Digest{1}}
	at := func(sec int64) time.Time { return time.Unix(sec, 0) }
	fetched := func(ref Ref, sec int64) *Netboot { return &Netboot{Ref: ref, At: at(sec)} }
	for _, c := range []struct {
		name string
		node Node
		want bool
	}{
		{"it never used it", Node{Uses: []Use{{Ref: v1, Began: at(10), LastCall: at(20)}}}, false},
		{"it runs it", Node{Uses: []Use{{Ref: d.Ref, Began: at(10), Mounted: at(10), LastCall: at(20)}}}, true},
		{"it ran another before", Node{Uses: []Use{{Ref: v1, Began: at(10)}, {Ref: d.Ref, Began: at(15), Mounted: at(15)}}}, true},
		{"it booted another since", Node{Uses: []Use{{Ref: d.Ref, Began: at(10), LastCall: at(20)}, {Ref: v1, Began: at(21)}}}, false},
		{"in the same second", Node{Uses: []Use{{Ref: d.Ref, Began: at(10), LastCall: at(20)}, {Ref: v1, Began: at(20)}}}, true},
		{"it looked at another", Node{Uses: []Use{{Ref: d.Ref, Began: at(10), LastCall: at(20)}, {Ref: v1, Mounted: at(21), LastCall: at(30)}}}, true},
		{"it was there, and called again", Node{Uses: []Use{{Ref: d.Ref, Began: at(10), LastCall: at(30)}, {Ref: v1, Began: at(21)}}}, true},
		{"it fetches its kernel", Node{Netboot: fetched(d.Ref, 90), Uses: []Use{{Ref: v1, Began: at(21)}}}, true},
		{"it fetches another one's", Node{Netboot: fetched(v1, 90)}, false},
		{"it fetched its kernel and booted another", Node{Netboot: fetched(d.Ref, 90), Uses: []Use{{Ref: v1, Began: at(95)}}}, false},
		{"it fetched its kernel long ago", Node{Netboot: fetched(d.Ref, 100-bootFilesMost)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.node.on(d.Ref, at(100)); got != c.want {
				t.Errorf("%t; want %t", got, c.want)
			}
		})
	}
}

// TestDraftWithMounts: what somebody has mounted into a draft, for a chroot, is not deleted with it.
func TestDraftWithMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	s := serveDrafts(t)
	s.start(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(s.drafts.Tree("v3"), "boot")
	if err := syscall.Mount(outside, at, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	err := s.drafts.Abandon("v3", "me", func() {})
	if e := syscall.Unmount(at, 0); e != nil {
		t.Error(e)
	}
	if err == nil || !strings.Contains(err.Error(), "unmount it first") {
		t.Errorf("%v; want that it is to be unmounted", err)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "file")); string(b) != "of the host" {
		t.Errorf("outside is %q, %v", b, err)
	}
	s.wants(t, s.peer, "/", "draft v3")
	if err := s.drafts.Abandon("v3", "me", func() {}); err != nil {
		t.Error(err)
	}
}

func TestMountsBelow(t *testing.T) {
	const table = `22 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw
23 22 0:21 / /srv/images/v3/proc rw - proc proc rw
24 22 0:5 / /srv/images/v3/a\040b rw - devtmpfs udev rw
25 22 0:5 / /srv/images/v33/dev rw - devtmpfs udev rw
26 22 0:5 / /srv/images/v3 rw - ext4 /dev/vdb rw
cut
`
	got, err := mountsBelow(strings.NewReader(table), "/srv/images/v3")
	if want := []string{"/srv/images/v3/proc", "/srv/images/v3/a b"}; !slices.Equal(got, want) || err != nil {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// FuzzRolloutWithDrafts: what is read is written as it was.
func FuzzRolloutWithDrafts(f *testing.F) {
	f.Add(`{"format":3,"stack":[],"drafts":[{"version":"v3","digest":"` + strings.Repeat("ab", 32) + `","node":"pi-01"}],"history":[]}`)
	f.Add(`{"format":3,"drafts":[{}]}`)
	f.Add(`{"format":4}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := decodeRollout(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, d := range r.Drafts {
			if r.DraftNamed(d.Version) == nil {
				t.Errorf("there is no draft %q in %+v", d.Version, r)
			}
		}
		r.DraftOf("pi-01")
	})
}

// TestDraftBootElsewhere has the address of a node given to another one while the node fetches the boot files of its draft: from then on
// who is there gets nothing of the draft.
func TestDraftBootElsewhere(t *testing.T) {
	s := serveDrafts(t)
	set := func(change func(e *Entry)) {
		t.Helper()
		err := OpenState(s.stateDir).UpdateInventory("me", anyVersion, func(inv *Inventory) error { change(inv.Named("pi-01")); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	set(func(e *Entry) { e.Serial = "0660cd37" })
	s.start(t)
	pi := BootID{Serial: "0660cd37"}
	if b := s.boots(t, draftHost, pi, BootFirst); !b.Draft || !b.Trusted {
		t.Fatalf("the node itself: draft %v, trusted %v", b.Draft, b.Trusted)
	}
	set(func(e *Entry) { e.Addresses = []netip.Addr{netip.MustParseAddr("10.1.2.77")} })
	for range 2 {
		if b := s.boots(t, draftHost, pi, BootAny); b.Draft || b.Trusted {
			t.Errorf("where the node is no more: draft %v, trusted %v", b.Draft, b.Trusted)
		}
	}
}
