package image_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
)

func fileSizes(t *testing.T, paths []string) (sum uint64) {
	t.Helper()
	for _, path := range paths {
		sum += uint64(fileSize(t, path))
	}
	return sum
}

// sealThinned seals a tree as v1 and a part of it as v2, which later versions
// share.
func sealThinned(t *testing.T, s *image.Store) (dir string) {
	t.Helper()
	dir, _ = sampleDir(t)
	write(t, dir+"/garbage", string(fstest.Bytes(1_500_000)))
	sealDir(t, s, "v1", dir)
	mtime := fstest.Sample()[0].Mtime
	when := time.Unix(mtime.Sec, int64(mtime.Nsec))
	if err := errors.Join(os.Remove(dir+"/garbage"), os.Chtimes(dir, when, when)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestCompact rewrites a pack, and compares all that it is about with before.
func TestCompact(t *testing.T) {
	s := newStore(t)
	dir := sealThinned(t, s)
	want := sealDir(t, s, "v2", dir)
	running := open(t, reopen(t, s.Dir()), "v2") // with none of its content verified

	if c, err := s.Compact(t.Context(), image.CompactOptions{}); err != nil || c != (image.Compaction{}) {
		t.Errorf("all is needed: %+v, %v", c, err)
	}
	frees, err := s.Frees([]string{"v1", "v2"})
	if err != nil || frees[0] != 1_500_000 || frees[1] < 500_000 || frees[1] > 1_500_000 {
		t.Errorf("Frees: %v, %v", frees, err)
	}
	if frees, err := s.Frees([]string{"v2"}); err != nil || frees[0] != 0 {
		t.Errorf("Frees of what v1 has all of: %v, %v", frees, err)
	}
	would, err := s.Compact(t.Context(), image.CompactOptions{DryRun: true, Without: []string{"v1"}})
	if err != nil || would.Rewritten != 1 || would.Freed != 1_500_000 {
		t.Errorf("dry run: %+v, %v", would, err)
	}
	before := fileSizes(t, packs(t, s))
	if err := s.RemoveOnly("v1", image.Digest{}); err != nil {
		t.Fatal(err)
	}
	if got := fileSizes(t, packs(t, s)); got != before {
		t.Errorf("RemoveOnly left %d of %d bytes in packs", got, before)
	}
	var last image.Progress
	c, err := s.Compact(t.Context(), image.CompactOptions{Progress: func(p image.Progress) { last = p }})
	if err != nil || c.Rewritten != 1 || c.Removed != 0 || c.Kept != nil || c.Garbage != 0 || c.Freed != before-fileSizes(t, packs(t, s)) || c.Freed < 1_500_000 {
		t.Errorf("%+v, %v; %d bytes before, %d after", c, err, before, fileSizes(t, packs(t, s)))
	}
	if last.Bytes != frees[1] || last.TotalBytes != last.Bytes {
		t.Errorf("last progress %+v, want %d bytes", last, frees[1])
	}

	v := open(t, reopen(t, s.Dir()), "v2")
	info := v.Info()
	if info.Digest != want.Digest || !info.Sealed.Equal(want.Sealed) || info.Objects != want.Objects || info.Bytes != want.Bytes || info.Layout == want.Layout {
		t.Errorf("%+v, want %+v but the layout", info, want.Info)
	}
	sample := fstest.Sample()
	for name, tree := range map[string]*image.Version{"opened before": running, "opened after": v} {
		t.Run(name, func(t *testing.T) { fstest.TestTree(t, tree, sample) })
	}
	if r := sealDir(t, s, "v2", dir); !r.Unchanged {
		t.Errorf("sealed again: %+v", r)
	}
	if r := sealDir(t, s, "v3", dir); r.NewBytes != 0 || r.Digest != want.Digest {
		t.Errorf("sealed by another name: %+v", r)
	}
	if _, err := s.Remove("v2", image.Digest{}); err != nil {
		t.Error(err)
	}
	if r, err := s.Remove("v3", image.Digest{}); err != nil || r.Kept != nil || len(packs(t, s)) != 0 {
		t.Errorf("%+v, %v, and %d packs are left", r, err, len(packs(t, s)))
	}
}

// TestCompactBesideDamage: what is needed of a pack that is damaged may be mended
// one day, so the pack stays; and while a version cannot be read all packs do.
func TestCompactBesideDamage(t *testing.T) {
	s := newBrokenStore(t)
	dir := sealThinned(t, s)
	sealDir(t, s, "v2", dir)
	first := packs(t, s)[0]
	// Another pack that could be rewritten, and is.
	other := writeFiles(t, map[string]string{"a": string(fstest.Bytes(40_000)), "b": string(fstest.Bytes(60_000))})
	sealDir(t, s, "v3", other)
	if err := os.Remove(other + "/b"); err != nil {
		t.Fatal(err)
	}
	sealDir(t, s, "v4", other)
	for _, name := range []string{"v1", "v3"} {
		if err := s.RemoveOnly(name, image.Digest{}); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(indexOf(s, "v4"))
	if err != nil {
		t.Fatal(err)
	}
	flip(t, indexOf(s, "v4"), 300)
	if c, err := s.Compact(t.Context(), image.CompactOptions{}); err == nil || !strings.Contains(err.Error(), "version v4") || c.Rewritten != 0 {
		t.Errorf("beside a damaged version: %+v, %v", c, err)
	}
	if err := os.WriteFile(indexOf(s, "v4"), good, 0o444); err != nil {
		t.Fatal(err)
	}
	id := lookup(t, open(t, s, "v2"), "bin/su")
	flipContent(t, first, fstest.Bytes(70_000))
	c, err := s.Compact(t.Context(), image.CompactOptions{})
	if err != nil || c.Rewritten != 1 || c.Garbage != 1_500_000 || c.Kept == nil || !strings.Contains(c.Kept.Error(), first) {
		t.Errorf("beside a damaged pack: %+v, %v", c, err)
	}
	if !slices.Contains(packs(t, s), first) {
		t.Error("the damaged pack is gone")
	}
	s = reopen(t, s.Dir())
	if _, err := content(open(t, s, "v2"), id); err == nil {
		t.Error("the damage went unnoticed")
	}
	if got := readAll(t, open(t, s, "v4"), "a"); got != string(fstest.Bytes(40_000)) {
		t.Error("v4 is not what it was")
	}
}

// flipContent changes a byte of the pack where it has some content.
func flipContent(t *testing.T, pack string, content []byte) {
	t.Helper()
	b, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), string(content[:4096]))
	if at < 0 {
		t.Fatal("the pack has no such content")
	}
	flip(t, pack, int64(at))
}

// TestReadersBesideCompact reads versions, opened before and anew, while packs are
// rewritten under them.
func TestReadersBesideCompact(t *testing.T) {
	s := newStore(t)
	dir := writeFiles(t, small)
	sealDir(t, s, "v1", dir)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		old := open(t, reopen(t, s.Dir()), "v1")
		wg.Go(func() {
			for {
				select {
				case <-done:
					readsAll(t, old, "opened before")
					return
				default:
				}
				v, err := reopen(t, s.Dir()).Open("v1")
				if err != nil || len(v.Problems()) > 0 {
					t.Error(err, v.Problems())
					return
				}
				readsAll(t, v, "opened just now")
			}
		})
	}
	for i := range 20 {
		// Of each pack that is added v1 comes to need a small part.
		write(t, filepath.Join(dir, "garbage"), string(fstest.Bytes(300_000+i)))
		write(t, filepath.Join(dir, "part"), string(fstest.Bytes(10_000+i)))
		sealDir(t, s, "w", dir)
		if err := os.Remove(filepath.Join(dir, "garbage")); err != nil {
			t.Fatal(err)
		}
		sealDir(t, s, "v1", dir)
		for _, name := range versionNames(t, s) {
			if name != "v1" {
				if err := s.RemoveOnly(name, image.Digest{}); err != nil {
					t.Error(err)
				}
			}
		}
		if c, err := s.Compact(t.Context(), image.CompactOptions{}); err != nil || c.Rewritten == 0 {
			t.Errorf("%+v, %v", c, err)
		}
	}
	close(done)
	wg.Wait()
}

// readsAll expects to read every file of small.
func readsAll(t *testing.T, v *image.Version, what string) {
	for path, ok := range readsRight(t, v, what) {
		if !ok {
			t.Errorf("%s: cannot read %s", what, path)
		}
	}
}
