package exports

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

// boot mounts dir as a node does that boots by an initramfs, and reads etc/issue.
func (s *served) boot(t *testing.T, dir string) {
	t.Helper()
	h, err := s.Mount(s.peer, dir, Caller{Booting: true})
	if err != nil {
		t.Fatal(err)
	}
	s.note(t, h, 0, 1)
}

// note reads a part of etc/issue below a mounted root.
func (s *served) note(t *testing.T, h []byte, off uint64, count uint32) {
	t.Helper()
	var o Object
	if err := s.Resolve(s.peer, h, &o); err != nil {
		t.Fatal(err)
	}
	issue, err := lookUp(o.Tree, "/etc/issue")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Resolve(s.peer, o.AppendHandle(nil, issue), &o); err != nil {
		t.Fatal(err)
	}
	o.NoteRead(off, count)
}

// learnt saves what was learnt and returns it as the next promote of a version
// finds it.
func (s *served) learnt(t *testing.T, version byte) *BootSet {
	t.Helper()
	s.saveBoots(time.Now(), true)
	set, err := OpenState(s.stateDir).BootSet(Ref{Digest: digestOf(version)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func (b *BootSet) String() string {
	if b == nil {
		return "nothing"
	}
	return fmt.Sprint(b.Version, b.Files)
}

func (s *served) expectLearnt(t *testing.T, version byte, want string) {
	t.Helper()
	if got := s.learnt(t, version).String(); got != want {
		t.Errorf("learnt: %s; want %s", got, want)
	}
}

func TestBootsAreLearnt(t *testing.T) {
	s := serve(t, "v1", "v2")
	s.promote(t, "v1")
	s.expectLearnt(t, 'b', "nothing")
	s.boot(t, "/")
	s.expectLearnt(t, 'b', "v1[{/etc/issue [0]}]")

	s.restart(t)
	h, err := s.Mount(s.peer, "/", Caller{Booting: true})
	if err != nil {
		t.Fatal(err)
	}
	s.note(t, h, 3*bootBlock-1, 2)
	s.expectLearnt(t, 'b', "v1[{/etc/issue [0 2 3]}]")

	s.promote(t, "v2")
	s.boot(t, "/")
	s.expectLearnt(t, 'b', "v2[{/etc/issue [0]}]")
	s.expectLearnt(t, 'a', "v1[{/etc/issue [0 2 3]}]")
	s.expectLearnt(t, 'x', "v2[{/etc/issue [0]}]") // that of the promoted one
}

// TestWhoDoesNotBootTeachesNothing lets a node be a node for longer than a boot
// takes, and somebody look at a version whose nodes tell that they boot.
func TestWhoDoesNotBootTeachesNothing(t *testing.T) {
	s := serve(t, "v1")
	h := s.mount(t, "/")
	s.note(t, h, 0, 1)
	s.expectLearnt(t, 'a', "v1[{/etc/issue [0]}]") // it may have been a boot without an initramfs
	s.nodes.now.Add(int64(bootTime/time.Second) + 1)
	s.note(t, h, bootBlock, 1)
	s.expectLearnt(t, 'a', "v1[{/etc/issue [0]}]")

	h, err := s.Mount(s.peer, "/", Caller{Booting: true})
	if err != nil {
		t.Fatal(err)
	}
	s.note(t, h, 2*bootBlock, 1)
	s.expectLearnt(t, 'a', "v1[{/etc/issue [2]}]")
	for _, restarted := range []bool{false, true} {
		if restarted {
			s.restart(t)
		}
		other := s.Peer(netip.MustParseAddrPort("10.9.9.9:700"))
		if h, err = s.Mount(other, "/", Caller{}); err != nil {
			t.Fatal(err)
		}
		s.peer = other
		s.note(t, h, 3*bootBlock, 1)
		s.expectLearnt(t, 'a', "v1[{/etc/issue [2]}]")
	}
}

func TestBootsAreSavedWhenTheyAreOver(t *testing.T) {
	s := serve(t, "v1")
	saved := func() bool {
		sets, err := OpenState(s.stateDir).bootSets()
		if err != nil {
			t.Fatal(err)
		}
		return len(sets) > 0
	}
	now := time.Now()
	s.boot(t, "/")
	s.saveBoots(now, false)
	s.note(t, s.mount(t, "/"), 0, 1)
	s.saveBoots(now.Add(quietTime-1), false)
	if saved() {
		t.Error("saved while the node may be booting")
	}
	s.saveBoots(now.Add(quietTime), false)
	if !saved() {
		t.Error("not saved after the node was quiet")
	}
}

// TestDamagedBootSet holds a promote to an error that names the file, and the
// server to making it anew.
func TestDamagedBootSet(t *testing.T) {
	s := serve(t, "v1")
	s.boot(t, "/")
	s.learnt(t, 'a')
	path := OpenState(s.stateDir).bootPath(digestOf('a'))
	for _, damaged := range []string{"", "{", `{"format": 99}`, `{"format": 1, "files": [{"blocks": "3-1"}]}`} {
		if err := os.WriteFile(path, []byte(damaged), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenState(s.stateDir).BootSet(Ref{Digest: digestOf('a')}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v; want an error about %s", damaged, err, path)
		}
	}
	// One that is damaged does not hide another.
	other := &BootSet{Format: bootFormat, Ref: Ref{Version: "v0", Digest: digestOf('o')}, Files: []BootFile{{"/f", Blocks{1}}}}
	if err := OpenState(s.stateDir).saveBootSet(other); err != nil {
		t.Fatal(err)
	}
	if set, err := OpenState(s.stateDir).BootSet(Ref{Digest: digestOf('a')}); err != nil || set.String() != "v0[{/f [1]}]" {
		t.Errorf("beside a damaged set: %v, %v; want that of v0", set, err)
	}
	s.restart(t)
	s.boot(t, "/")
	s.expectLearnt(t, 'a', "v1[{/etc/issue [0]}]")
}

// TestBootSetIsBounded reads sets that hold too much in all files together,
// while no file does.
func TestBootSetIsBounded(t *testing.T) {
	state := OpenState(t.TempDir())
	path := state.bootPath(digestOf('a'))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for files, want := range map[int]bool{8: true, 9: false} {
		file := fmt.Sprintf(`,{"path": "/f", "blocks": "0-%d"}`, mostSetBlocks/8-1)
		text := `{"format": 1, "files": [` + strings.Repeat(file, files)[1:] + "]}"
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		set, err := readBootSet(path)
		if got := err == nil && set.blocks() == mostSetBlocks; got != want {
			t.Errorf("%d files: %v; want it read: %v", files, err, want)
		}
	}
	whole := make(Blocks, mostSetBlocks)
	for i := range whole {
		whole[i] = uint64(i)
	}
	for _, blocks := range []Blocks{whole, {mostSetBlocks}} { // together they are too many
		if err := state.saveBootSet(&BootSet{Format: bootFormat, Ref: Ref{Digest: digestOf('a')}, Files: []BootFile{{"/f", blocks}}}); err != nil {
			t.Fatal(err)
		}
		if set, err := readBootSet(path); err != nil || set.blocks() != mostSetBlocks {
			t.Fatalf("%v; want a set of %d blocks", err, mostSetBlocks)
		}
	}
}

// TestBootsThatCannotBeSaved has something in the way of the directory for a while.
func TestBootsThatCannotBeSaved(t *testing.T) {
	s := serve(t, "v1")
	core, logs := observer.New(zap.ErrorLevel)
	s.log = zap.New(core)
	s.boot(t, "/")
	dir := filepath.Join(s.stateDir, bootDir)
	if err := os.WriteFile(dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range 4 {
		s.saveBoots(now.Add(time.Duration(i)*quietTime), false)
	}
	if n := logs.Len(); n != 1 {
		t.Errorf("%d errors were logged; want one", n)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.saveBoots(now.Add(4*quietTime), false)
	if set, err := readBootSet(OpenState(s.stateDir).bootPath(digestOf('a'))); set == nil || err != nil {
		t.Errorf("%v, %v; want it saved as soon as it can be", set, err)
	}
}

func TestOldBootSetsAreDeleted(t *testing.T) {
	state := OpenState(t.TempDir())
	for i := range 2 * mostBootSets {
		set := &BootSet{Format: bootFormat, Ref: Ref{Digest: digestOf(byte(i))}, Files: []BootFile{{"/f", Blocks{1}}}}
		if err := state.saveBootSet(set); err != nil {
			t.Fatal(err)
		}
	}
	sets, err := state.bootSets()
	if err != nil || len(sets) != mostBootSets {
		t.Errorf("%d boot sets, %v; want %d", len(sets), err, mostBootSets)
	}
	if !slices.Contains(sets, state.bootPath(digestOf(2*mostBootSets-1))) {
		t.Error("the newest is not among them")
	}
	if left, err := filepath.Glob(filepath.Join(state.dir, bootDir, ".tmp-*")); left != nil || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBlocks(t *testing.T) {
	for text, want := range map[string]Blocks{"": nil, "0": {0}, "0-2,4,6-7": {0, 1, 2, 4, 6, 7}} {
		if b, err := parseBlocks(text, 6); err != nil || !slices.Equal(b, want) {
			t.Errorf("%q: %v, %v; want %v", text, b, err, want)
		}
		if got, err := want.MarshalText(); string(got) != text || err != nil {
			t.Errorf("%v: %q, %v; want %q", want, got, err, text)
		}
	}
	for _, bad := range []string{",", "-", "1-", "2-1", "x", "0-16777215", "16777216", "1,,2", "0-6", "0-2,4-8"} {
		if _, err := parseBlocks(bad, 6); err == nil {
			t.Errorf("%q was taken for blocks", bad)
		}
	}
}

// warmTree notes what is to be warmed.
type warmTree struct {
	*fstest.MemTree
	ranges []fs.Range
}

func (t *warmTree) Warm(_ context.Context, ranges []fs.Range, _ func(done, total uint64)) (uint64, error) {
	t.ranges = ranges
	return uint64(len(ranges)) * bootBlock, nil
}

// TestBootSetOfAnotherVersion finds the files by path, whatever their numbers.
func TestBootSetOfAnotherVersion(t *testing.T) {
	tree := &warmTree{MemTree: fstest.NewMemTree(1)}
	tree.Mkdir("/new", 0o755)
	tree.Mkdir("/etc", 0o755)
	tree.Symlink("/link", "etc")
	issue := tree.WriteFile("/etc/issue", 0o644, []byte("issue"))
	set := &BootSet{Files: []BootFile{{"/etc/gone", Blocks{0}}, {"/etc/issue", Blocks{0, 7}}, {"/link/issue", Blocks{0}}, {"../x", Blocks{1}}, {"", nil}}}
	want := []fs.Range{{ID: issue, Off: 0, Len: bootBlock}, {ID: issue, Off: 7 * bootBlock, Len: bootBlock}}
	if got := set.In(tree); !reflect.DeepEqual(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
}

// TestPromotedVersionIsWarmed lets a server start, and notice a promote.
func TestPromotedVersionIsWarmed(t *testing.T) {
	s := serve(t, "v1")
	s.boot(t, "/")
	s.learnt(t, 'a')
	tree := &warmTree{MemTree: testTree('a').(*fstest.MemTree)}
	s.store.versions[0].Open = func() (fs.Tree, error) { return tree, nil }
	s.restart(t)
	s.warm = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // one round
	s.watchBoots(ctx)
	if len(tree.ranges) != 1 || tree.ranges[0].ID != tree.ID("/etc/issue") {
		t.Errorf("warmed %v; want etc/issue", tree.ranges)
	}
}

// TestBootLogIsBounded notes more than there is room for, by several at once.
func TestBootLogIsBounded(t *testing.T) {
	l := new(bootLog)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(mostBlocks) {
				l.note(fs.NodeID(1+i%1000), (i/1000*3+g%2)*bootBlock, 1)
			}
		})
	}
	wg.Wait()
	keys := l.keys()
	if n := int64(len(keys)); n != l.count.Load() || n > mostBlocks+4 || n < mostBlocks/2 {
		t.Errorf("%d blocks noted, counted as %d; want at most %d", n, l.count.Load(), mostBlocks)
	}
	slices.Sort(keys)
	if n := len(slices.Compact(keys)); n != len(keys) {
		t.Errorf("%d blocks noted twice", len(keys)-n)
	}
	before := l.count.Load()
	l.note(1, 1<<63, 1<<20)
	l.note(1<<60, 0, 1)
	l.note(1, 0, 0)
	if l.count.Load() != before {
		t.Error("what makes no sense was noted")
	}
}

func TestNotingAReadAllocatesNothing(t *testing.T) {
	l := new(bootLog)
	off := uint64(0)
	if n := testing.AllocsPerRun(1000, func() { l.note(7, off, 1<<20); off += 1 << 20 }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
